import pytest
import torch

from aligndistill.objectives.best_of_n import best_of_n
from aligndistill.objectives.inputs import Ranked


def test_mean_per_token_of_the_best_then_mean_over_prompts() -> None:
    ranked = Ranked(
        policy_BK=torch.tensor([[-10.0, -1.0], [-6.0, -2.0]], requires_grad=True),
        reference_BK=None,
        scores_BK=torch.tensor([[1.0, 0.0], [3.0, 2.0]]),
        lengths_BK=torch.tensor([[5, 1], [2, 1]]),
        valid_BK=torch.tensor([[True, True], [True, False]]),
    )
    loss = best_of_n(ranked)
    assert loss.value.item() == pytest.approx((10 / 5 + 6 / 2) / 2)
    assert loss.metrics["logps/chosen"].nanmean().item() == pytest.approx((-10 - 6) / 2)
    loss.value.backward()
    assert ranked.policy_BK.grad is not None
    assert ranked.policy_BK.grad.tolist() == [[pytest.approx(-1 / 5 / 2), 0.0], [pytest.approx(-1 / 2 / 2), 0.0]]


def test_all_tied_takes_the_first() -> None:
    ranked = Ranked(
        policy_BK=torch.tensor([[-10.0, -1.0]]),
        reference_BK=None,
        scores_BK=torch.zeros(1, 2),
        lengths_BK=torch.tensor([[5, 1]]),
        valid_BK=torch.ones(1, 2, dtype=torch.bool),
    )
    assert best_of_n(ranked).value.item() == pytest.approx(2)
