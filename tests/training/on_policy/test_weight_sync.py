"""Adapters whose merged weights a rollout server cannot load are refused before anything is asked of it."""

from pathlib import Path
from typing import Any

import pytest

from aligndistill.config.models import Lora
from aligndistill.errors import ConfigError
from aligndistill.training.adapters import with_adapters
from aligndistill.training.on_policy.weight_sync import ServedRollouts, require_servable
from tests.tiny_models import tiny_model
from tests.training.on_policy.tiny_ppo import tiny_ppo


class NeverAsked:
    """A server that must not be asked for anything."""

    def load(self, folder: Path) -> None:
        raise AssertionError(f"{folder} was sent")

    @property
    def sample(self) -> Any:
        raise AssertionError("the server was asked for answers")


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_adapters_on_a_tied_weight_are_refused(target: str, tmp_path: Path) -> None:
    served = ServedRollouts(NeverAsked(), tmp_path / "weights")
    with pytest.raises(ConfigError, match=r"target_modules names the head or the embeddings.*remove objective.server"):
        tiny_ppo(tmp_path, lora=Lora(r=2, target_modules=("q_proj", target)), served=served)


@pytest.mark.parametrize(("tied", "target"), [(True, "q_proj"), (True, "all-linear"), (False, "lm_head"), (False, "embed_tokens")])
def test_other_adapters_are_not(tied: bool, target: str) -> None:
    targets = target if target == "all-linear" else (target,)
    require_servable(with_adapters(tiny_model(tie_word_embeddings=tied), Lora(r=2, target_modules=targets), "CAUSAL_LM", seed=0))


def test_a_policy_without_adapters_is_not() -> None:
    require_servable(tiny_model())
