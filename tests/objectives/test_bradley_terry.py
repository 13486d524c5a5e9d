import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from trl import RewardTrainer

from aligndistill.objectives.bradley_terry import bradley_terry_loss

ALL = torch.ones(1, 3, dtype=torch.bool)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_every_ordered_pair_of_a_prompt_weighs_the_same() -> None:
    loss = bradley_terry_loss(torch.tensor([[0.5, 2.0, -1.0]]), torch.tensor([[3.0, 2.0, 1.0]]), ALL)
    pairs = [-log_sigmoid(0.5 - 2.0), -log_sigmoid(0.5 + 1.0), -log_sigmoid(2.0 + 1.0)]
    assert loss.value.item() == pytest.approx(sum(pairs) / 3)
    assert loss.metrics["accuracy"].nanmean().item() == pytest.approx(2 / 3)
    assert loss.metrics["margin"].nanmean().item() == pytest.approx((-1.5 + 1.5 + 3.0) / 3)


def test_a_tie_is_no_pair() -> None:
    loss = bradley_terry_loss(torch.tensor([[0.5, 2.0, -1.0]]), torch.tensor([[3.0, 1.0, 1.0]]), ALL)
    assert loss.value.item() == pytest.approx((-log_sigmoid(-1.5) - log_sigmoid(1.5)) / 2)


def test_a_tie_is_a_pair_of_probability_one_half_under_soft_labels() -> None:
    rewards_BK = torch.tensor([[0.5, 2.0, -1.0, 9.0]])  # the last is padding
    valid_BK = torch.tensor([[True, True, True, False]])
    loss = bradley_terry_loss(rewards_BK, torch.tensor([[3.0, 1.0, 1.0, 1.0]]), valid_BK, labels="soft", margin=0.25, centering=0.1)
    p = sigmoid(3.0 - 1.0)
    strict = [-(p * log_sigmoid(gap - 0.5) + (1 - p) * log_sigmoid(0.5 - gap)) for gap in (0.5 - 2.0, 0.5 + 1.0)]
    tie = -(log_sigmoid(2.0 + 1.0) + log_sigmoid(-3.0)) / 2  # 1.5486: the margin asks nothing of it
    assert tie == pytest.approx(1.5 + math.log1p(math.exp(-3.0)))
    centre = 0.1 * (2.5**2 + (-0.5) ** 2 + 1.0**2)
    assert loss.value.item() == pytest.approx((sum(strict) + tie + centre) / 3)
    assert loss.metrics["accuracy"].tolist() == [1 / 2]  # of the strict pairs alone
    assert loss.metrics["margin"].tolist() == [0.0]


def test_answers_that_are_all_tied_are_drawn_together_by_soft_labels_alone() -> None:
    for labels, expected in (("soft", [1.0, -1.0]), ("hard", [0.0, 0.0])):
        rewards_BK = torch.tensor([[2.0, 1.0]], requires_grad=True)
        bradley_terry_loss(rewards_BK, torch.tensor([[0.5, 0.5]]), ALL[:, :2], labels=labels).value.backward()  # type: ignore[arg-type]
        assert rewards_BK.grad is not None
        assert rewards_BK.grad[0].tolist() == pytest.approx([(sigmoid(1.0) - 0.5) * sign for sign in expected])


def test_soft_labels_weigh_both_directions_by_the_teachers_probability() -> None:
    loss = bradley_terry_loss(torch.tensor([[0.5, 2.0]]), torch.tensor([[1.2, 0.2]]), ALL[:, :2], labels="soft")
    p = sigmoid(1.2 - 0.2)
    assert loss.value.item() == pytest.approx(-(p * log_sigmoid(-1.5) + (1 - p) * log_sigmoid(1.5)))


def test_soft_labels_are_met_exactly_by_the_teachers_own_scores() -> None:
    scores_BK = torch.tensor([[2.0, 0.3, -1.0]], dtype=torch.float64)
    rewards_BK = (scores_BK + 5).requires_grad_()
    bradley_terry_loss(rewards_BK, scores_BK, ALL, labels="soft").value.backward()
    assert rewards_BK.grad is not None
    assert rewards_BK.grad.abs().max() < 1e-15


def test_the_margin_asks_for_a_share_of_the_score_gap() -> None:
    loss = bradley_terry_loss(torch.tensor([[0.5, 2.0]]), torch.tensor([[4.0, 1.0]]), ALL[:, :2], margin=0.5)
    assert loss.value.item() == pytest.approx(-log_sigmoid((0.5 - 2.0) - 0.5 * (4.0 - 1.0)))


def test_centering_pulls_the_sum_of_a_pairs_rewards_to_zero() -> None:
    rewards_BK, scores_BK = torch.tensor([[0.5, 2.0, -1.0]]), torch.tensor([[3.0, 2.0, 1.0]])
    plain = bradley_terry_loss(rewards_BK, scores_BK, ALL).value.item()
    centred = bradley_terry_loss(rewards_BK, scores_BK, ALL, centering=0.1).value.item()
    assert centred - plain == pytest.approx(0.1 * (2.5**2 + (-0.5) ** 2 + 1.0**2) / 3)


def test_the_term_is_part_of_the_loss_and_of_no_metric() -> None:
    rewards_BK, scores_BK = torch.tensor([[0.5, 2.0, 9.0]]), torch.tensor([[4.0, 1.0, 0.0]])
    valid_BK = torch.tensor([[True, True, False]])
    term_BKK = torch.tensor([[[0.0, 0.7, 5.0], [-0.7, 0.0, 6.0], [-5.0, -6.0, 0.0]]])
    loss = bradley_terry_loss(rewards_BK, scores_BK, valid_BK, centering=0.1, term_BKK=term_BKK)
    assert loss.value.item() == pytest.approx(-log_sigmoid(0.5 - 2.0 + 0.7) + 0.1 * 2.5**2)
    assert (loss.metrics["accuracy"].tolist(), loss.metrics["margin"].tolist()) == ([0.0], [-1.5])


def trl_loss(
    chosen_B: Tensor, rejected_B: Tensor, coefficient: float | None, margin_B: Tensor | None
) -> tuple[Tensor, dict[str, float]]:
    """The loss and metrics of TRL's own `RewardTrainer.compute_loss`, around a model that returns these rewards."""
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(center_rewards_coefficient=coefficient),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {"attention_mask": torch.ones(1)} | ({} if margin_B is None else {"margin": margin_B})
    logits = torch.cat([chosen_B, rejected_B]).unsqueeze(-1)
    loss = RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=logits), inputs)
    return loss, {key: trainer._metrics["train"][key][0] for key in ("accuracy", "margin")}


@pytest.mark.parametrize("centering", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_two_answers_a_prompt_cost_what_trl_charges(centering: float, margin: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rewards_BK = (torch.randn(16, 2, generator=generator, dtype=torch.float64) * 3).requires_grad_()
    scores_BK = torch.randn(16, 2, generator=generator, dtype=torch.float64).sort(dim=1, descending=True).values
    gap_B = scores_BK[:, 0] - scores_BK[:, 1]

    ours = bradley_terry_loss(rewards_BK, scores_BK, torch.ones(16, 2, dtype=torch.bool), margin=margin, centering=centering)
    theirs, metrics = trl_loss(rewards_BK[:, 0], rewards_BK[:, 1], centering or None, gap_B if margin else None)

    torch.testing.assert_close(ours.value, theirs, rtol=1e-12, atol=0)
    (our_gradient,) = torch.autograd.grad(ours.value, rewards_BK)
    (their_gradient,) = torch.autograd.grad(theirs, rewards_BK)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-12, atol=1e-15)
    assert {key: value.nanmean().item() for key, value in ours.metrics.items()} == pytest.approx(metrics, rel=1e-6)
