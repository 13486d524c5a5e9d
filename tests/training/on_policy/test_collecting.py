"""What the processes of an update must agree on."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from aligndistill.config.objectives import Ppo
from aligndistill.training.on_policy import collecting
from aligndistill.training.on_policy.collecting import Collector, PpoWork
from aligndistill.training.on_policy.rollouts import RolloutSettings
from tests.training.as_processes import as_processes


def collector(rank: int, win_rate: Any = None) -> Collector:
    """Of a process that has none of the update's prompts."""
    policy: Any = SimpleNamespace(batches=lambda groups, size: [], conversation=SimpleNamespace(response_text=None), rank=rank)
    work = PpoWork([], policy, lambda asked: [], win_rate, lambda update, rollouts: None)
    accelerator = SimpleNamespace(process_index=rank, num_processes=2, autocast=nullcontext)
    model: Any = SimpleNamespace(critic=policy)
    work.reference.model = SimpleNamespace(parameters=list)  # type: ignore[union-attr]
    return Collector(
        Ppo(kind="ppo", evaluate_every=1), model, policy, work, RolloutSettings(1, 1.0, 4, 2, 0), accelerator, nullcontext
    )


def test_log_probs_of_sampling_are_kept_only_where_every_process_found_them_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in ([True, True], [True, False], [False, True], [False, False]):
        monkeypatch.setattr(collecting, "sampling_is_training", lambda policy, *rest, found=found: found[policy.rank])
        agreed = as_processes(monkeypatch, 2, lambda rank: collector(rank).collect(0, [], None).keeps_logprobs)
        assert agreed == [all(found)] * 2


def test_a_win_rate_that_could_not_be_read_is_not_logged() -> None:
    assert collector(0, lambda policy: 0.0).collect(0, [], keeps=True).metrics["held_out_win_rate"] == 0
    assert "held_out_win_rate" not in collector(0, lambda policy: None).collect(0, [], keeps=True).metrics
