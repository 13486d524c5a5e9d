import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from aligndistill.objectives.inputs import Loss, Ranked
from aligndistill.objectives.kto import desirability, kto
from tests.objectives.test_dpo import one_prompt
from tests.objectives.test_pairs import a_batch, with_gradient


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def with_baseline(ranked: Ranked, baseline_nats: float) -> Ranked:
    return dataclasses.replace(ranked, baseline_nats=torch.tensor(baseline_nats, dtype=torch.float64))


# Log-ratios 1, -1 and 2; the second answer is at the mean score.
THREE = with_baseline(one_prompt([-10.0, -12.0, -7.0], [-11.0, -11.0, -9.0], [2.0, 1.0, 0.0]), 0.4)


def test_each_answer_costs_by_itself_against_the_baseline() -> None:
    loss = kto(THREE, beta=0.5, desirable_weight=1.2, undesirable_weight=0.9)
    desirable, undesirable = 1 - sigmoid(0.5 * (1 - 0.4)), 1 - sigmoid(0.5 * (0.4 - 2))
    assert loss.value.item() == pytest.approx((1.2 * desirable + 0.9 * undesirable) / 2)
    assert loss.metrics["rewards/margins"].tolist() == pytest.approx([0.5 * (2 - 1 - 3) / 3])
    assert loss.metrics["baseline_nats"].tolist() == [0.4]


def test_soft_labels_weigh_both_by_the_score_above_the_mean() -> None:
    loss = kto(THREE, beta=0.5, labels="soft")
    costs = []
    for ratio, above in ((1, 1.0), (-1, 0.0), (2, -1.0)):
        p, gain = sigmoid(above), 0.5 * (ratio - 0.4)
        costs.append(p * (1 - sigmoid(gain)) + (1 - p) * (1 - sigmoid(-gain)))
    assert loss.value.item() == pytest.approx(sum(costs) / 3)


def test_soft_gradients_are_hard_ones_scaled_by_how_certain_the_label_is() -> None:
    two = with_baseline(one_prompt([-10.0, -12.0], [-11.0, -11.0], [1.5, 0.5]), 0.4)
    _, hard = with_gradient(lambda ranked: kto(ranked, beta=0.5), two)
    _, soft = with_gradient(lambda ranked: kto(ranked, beta=0.5, labels="soft"), two)
    torch.testing.assert_close(soft, (2 * sigmoid(0.5) - 1) * hard, rtol=1e-12, atol=0)


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_at_the_reference_every_answer_costs_a_half_and_moves_by_a_quarter_of_beta(labels: Any) -> None:
    ranked = a_batch()
    assert ranked.reference_BK is not None
    start = dataclasses.replace(ranked, policy_BK=ranked.reference_BK, baseline_nats=torch.tensor(0.0))
    loss, gradient_BK = with_gradient(lambda one: kto(one, beta=0.3, labels=labels), start)
    assert loss.value.item() == pytest.approx(0.5)
    desirable_BK, undesirable_BK = desirability(ranked.scores_BK, ranked.valid_BK, labels)
    expected_BK = -0.3 / 4 * (desirable_BK - undesirable_BK) / len(gradient_BK)
    torch.testing.assert_close(gradient_BK, expected_BK, rtol=1e-12, atol=1e-15)


def test_the_baseline_is_cut_at_zero_in_the_loss_and_logged_as_it_is() -> None:
    below, zero = (kto(with_baseline(THREE, baseline), beta=0.5) for baseline in (-3.0, 0.0))
    assert below.value.item() == zero.value.item()
    assert below.metrics["baseline_nats"].tolist() == [-3.0]


def test_no_gradient_flows_through_the_baseline() -> None:
    baseline = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    policy_BK = THREE.policy_BK.clone().requires_grad_()
    loss: Loss = kto(dataclasses.replace(THREE, policy_BK=policy_BK, baseline_nats=baseline), beta=0.5)
    loss.value.backward()
    assert baseline.grad is None
    assert policy_BK.grad is not None


# ---------------------------------------------------------------------------------------------------------------- labels


def labels_of(scores: list[float], margin: float = 0.0, dtype: torch.dtype = torch.float64) -> list[int]:
    """1 for desirable, -1 for undesirable, 0 for neither."""
    scores_BK = torch.tensor([scores], dtype=dtype)
    desirable_BK, undesirable_BK = desirability(scores_BK, torch.ones_like(scores_BK, dtype=torch.bool), "hard", margin)
    return (desirable_BK.sign() - undesirable_BK.sign())[0].int().tolist()


def test_answers_are_desirable_above_their_prompts_mean_and_undesirable_below() -> None:
    assert labels_of([3.0, 1.0, 0.0, -1.0]) == [1, 1, -1, -1]
    assert labels_of([3.0, 2.0, 2.0, 2.0]) == [1, -1, -1, -1]
    assert labels_of([2.0, 1.0]) == [1, -1]


def test_a_margin_leaves_out_what_is_close_to_the_mean() -> None:
    assert labels_of([3.0, 1.0, 0.0, -1.0], margin=0.5) == [1, 0, -1, -1]
    assert labels_of([3.0, 1.0, 0.0, -1.0], margin=5.0) == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_labels_nothing(dtype: torch.dtype) -> None:
    assert labels_of([0.3, 0.2, 0.1], dtype=dtype) == [1, 0, -1]
    assert labels_of([100.3, 100.2, 100.1], dtype=dtype) == [1, 0, -1]
    for score in (0.1, 0.7, 12.3):
        assert labels_of([score] * 3, dtype=dtype) == [0, 0, 0]


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_a_prompts_labels_weigh_one_however_many_there_are(labels: Any) -> None:
    ranked = a_batch()
    desirable_BK, undesirable_BK = desirability(ranked.scores_BK, ranked.valid_BK, labels)
    torch.testing.assert_close((desirable_BK + undesirable_BK).sum(1), torch.ones(4, dtype=torch.float64), rtol=1e-12, atol=0)
    assert (desirable_BK[~ranked.valid_BK] == 0).all()
    assert (undesirable_BK[~ranked.valid_BK] == 0).all()


# ------------------------------------------------------------------------------------------------------------ the formula


def test_a_naive_loop_agrees() -> None:
    generator = torch.Generator().manual_seed(3)

    def uniform(width: float) -> Tensor:
        return -torch.rand(8, 6, generator=generator, dtype=torch.float64) * width

    ranked = Ranked(
        policy_BK=uniform(40),
        reference_BK=uniform(40),
        scores_BK=torch.randint(0, 4, (8, 6), generator=generator).double(),
        lengths_BK=torch.randint(1, 20, (8, 6), generator=generator),
        valid_BK=torch.rand(8, 6, generator=generator) < 0.8,
        baseline_nats=torch.tensor(0.7, dtype=torch.float64),
    )
    assert ranked.reference_BK is not None
    total = 0.0
    for b in range(8):
        real = [k for k in range(6) if ranked.valid_BK[b, k]]
        mean = sum(float(ranked.scores_BK[b, k]) for k in real) / max(len(real), 1)
        costs = []
        for k in real:
            above, ratio = float(ranked.scores_BK[b, k]) - mean, float(ranked.policy_BK[b, k] - ranked.reference_BK[b, k])
            if above > 1e-9:
                costs.append(1 - sigmoid(0.1 * (ratio - 0.7)))
            elif above < -1e-9:
                costs.append(1.3 * (1 - sigmoid(0.1 * (0.7 - ratio))))
        total += sum(costs) / max(len(costs), 1)
    assert kto(ranked, beta=0.1, undesirable_weight=1.3).value.item() == pytest.approx(total / 8, rel=1e-12)
