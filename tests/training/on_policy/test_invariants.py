"""Each invariant's name, when what it guards is broken in a run; a run that is whole is in test_ppo.py."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from aligndistill.errors import InvariantError
from aligndistill.models.groups import TokenGroup, collate
from aligndistill.training.on_policy import collecting, experience, rollouts
from aligndistill.training.on_policy import trainer as ppo
from aligndistill.training.on_policy.invariants import require_masks_of_lengths, require_ratio_of_one, require_valid_metrics
from aligndistill.training.on_policy.rollouts import SampledPrompt
from tests.training.on_policy.tiny_ppo import tiny_ppo, vowels


def invariant(run: Callable[[], Any]) -> str:
    with pytest.raises(InvariantError) as raised:
        run()
    assert raised.value.invariant in str(raised.value)
    return raised.value.invariant


def test_a_sampler_with_another_temperature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log-probs it returns are not those of the training pass: noticed when measured, and so they are scored again."""
    plain = rollouts.sample

    def colder(*args: Any, **kwargs: Any) -> Any:
        return plain(*args, **{**kwargs, "temperature": 0.8 * kwargs["temperature"]})

    monkeypatch.setattr(rollouts, "sample", colder)
    ran = tiny_ppo(tmp_path / "measured", updates=1)
    assert ran.trained.trainer.state_of_ppo.keeps_logprobs is False
    monkeypatch.setattr(collecting, "sampling_is_training", lambda *args: True)
    assert invariant(lambda: tiny_ppo(tmp_path / "trusted", updates=1)) == "ratio-is-one"


def test_training_at_another_temperature_than_scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ppo.outputs
    monkeypatch.setattr(ppo, "outputs", lambda model, batch, share, temperature: plain(model, batch, share, 1.1 * temperature))
    assert invariant(lambda: tiny_ppo(tmp_path, updates=1)) == "ratio-is-one"


def test_an_update_that_begins_after_the_policy_has_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ppo.PpoTrainer._experience

    def then_moved(self: Any, update: int) -> Any:
        made = plain(self, update)
        with torch.no_grad():
            for parameter in self.model.policy.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        return made

    monkeypatch.setattr(ppo.PpoTrainer, "_experience", then_moved)
    assert invariant(lambda: tiny_ppo(tmp_path, updates=1)) == "ratio-is-one"


def test_a_shifted_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(groups: Sequence[TokenGroup], pad_id: int, share: bool) -> Any:
        batch = collate(groups, pad_id, share)
        batch.tokens_BKR.copy_(torch.cat([batch.tokens_BKR[..., 1:], torch.zeros_like(batch.tokens_BKR[..., :1])], dim=-1))
        return batch

    monkeypatch.setattr(experience, "collate", shifted)
    assert invariant(lambda: tiny_ppo(tmp_path, updates=1)) == "mask-is-lengths"


def test_predictors_one_place_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask counts right, and each token is read a place too late."""

    def late(groups: Sequence[TokenGroup], pad_id: int, share: bool) -> Any:
        batch = collate(groups, pad_id, share)
        batch.predictors_S.add_(1)
        return batch

    monkeypatch.setattr(experience, "collate", late)
    assert invariant(lambda: tiny_ppo(tmp_path, updates=1)) == "ratio-is-one"


@pytest.mark.parametrize("strange", [math.nan, math.inf])
def test_a_score_that_is_no_number(strange: float, tmp_path: Path) -> None:
    def score(asked: Sequence[SampledPrompt]) -> list[list[float | None]]:
        return [[strange, *row[1:]] for row in vowels(asked)]

    assert invariant(lambda: tiny_ppo(tmp_path, updates=1, score=score)) == "finite"


def test_no_score_at_all(tmp_path: Path) -> None:
    assert invariant(lambda: tiny_ppo(tmp_path, updates=1, score=lambda asked: [[None] * 3 for _ in asked])) == "finite"


def test_each_by_itself() -> None:
    mask = torch.ones(1, 1, 4, dtype=torch.bool)
    zeros = torch.zeros(1, 1, 4)
    require_ratio_of_one(zeros + 9e-4, zeros, mask, torch.float32)
    require_ratio_of_one(zeros + 9.0, zeros, ~mask, torch.float32)  # padding may hold anything
    require_ratio_of_one(zeros + 0.04, zeros, mask, torch.bfloat16)
    for wrong, dtype in ((0.011, torch.float32), (0.06, torch.bfloat16), (math.nan, torch.float32)):
        assert invariant(lambda wrong=wrong, dtype=dtype: require_ratio_of_one(zeros + wrong, zeros, mask, dtype)) == "ratio-is-one"  # type: ignore[misc]
    group = TokenGroup([5], [[6, 7], [8]])
    require_masks_of_lengths(collate([group], 0, True).tokens_BKR, [group])
    assert invariant(lambda: require_masks_of_lengths(torch.ones(1, 2, 2), [group])) == "mask-is-lengths"
    require_valid_metrics({"kl_k3_nats": 0.0, "score": -3.0})
    assert invariant(lambda: require_valid_metrics({"kl_k3_nats": -1e-3})) == "k3-not-negative"
    with pytest.raises(InvariantError, match="explained_variance is nan"):
        require_valid_metrics({"kl_k3_nats": 0.0, "explained_variance": math.nan})
