import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from aligndistill.objectives.bradley_terry import bradley_terry_loss
from aligndistill.objectives.length_bias import STEEPEST, LengthTerm, fitted_length_term
from aligndistill.objectives.pairs import differences

BOTH = torch.ones(4, 2, dtype=torch.bool)
HARD = torch.tensor([[1.0, 0.0]]).repeat(4, 1)


def test_the_weight_says_how_often_the_longer_answer_wins() -> None:
    """All differences are 20 tokens: of one deviation, and sigmoid(weight * tanh(1)) = 3 / 4."""
    lengths_BK = torch.tensor([[30, 10], [25, 5], [120, 100], [10, 30]])
    term = fitted_length_term(HARD, lengths_BK, BOTH)
    assert term.deviation_tokens == 20
    assert term.weight == pytest.approx(math.log(3) / math.tanh(1))
    assert term.logit(torch.tensor([-20.0, 0.0, 20.0])).tolist() == pytest.approx([-math.log(3), 0.0, math.log(3)])
    shorter = fitted_length_term(HARD, lengths_BK.flip(1), BOTH)
    assert shorter.weight == pytest.approx(-term.weight)


def test_soft_labels_that_are_length_alone_give_their_own_weight() -> None:
    lengths_BK = torch.tensor([[7, 4], [1, 9], [50, 40], [3, 3]])
    deviation = math.sqrt((9 + 64 + 100 + 0) / 4)
    gap_B = (lengths_BK[:, 0] - lengths_BK[:, 1]).double()
    scores_BK = torch.stack([0.8 * torch.tanh(gap_B / deviation), torch.zeros(4, dtype=torch.float64)], 1)
    assert fitted_length_term(scores_BK, lengths_BK, BOTH, labels="soft") == LengthTerm(
        pytest.approx(0.8),  # type: ignore[arg-type]
        pytest.approx(deviation),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("labels", "margin"), [("hard", 0.0), ("soft", 0.0), ("hard", 0.3)])
def test_no_other_weight_has_a_smaller_loss(labels: Literal["hard", "soft"], margin: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scores_BK = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    lengths_BK = torch.randint(1, 200, (40, 5), generator=generator)
    valid_BK = torch.arange(5) < torch.randint(2, 6, (40, 1), generator=generator)
    scores_BK[~valid_BK], lengths_BK[~valid_BK] = torch.nan, 0
    term = fitted_length_term(scores_BK, lengths_BK, valid_BK, labels=labels, margin=margin)

    def loss(weight: float) -> float:
        term_BKK = LengthTerm(weight, term.deviation_tokens).logit(differences(lengths_BK.double()))
        nothing_BK = torch.zeros_like(scores_BK)
        return bradley_terry_loss(nothing_BK, scores_BK, valid_BK, labels=labels, margin=margin, term_BKK=term_BKK).value.item()

    assert loss(term.weight) < min(loss(term.weight - 0.01), loss(term.weight + 0.01))


def test_without_a_difference_there_is_no_term_and_without_an_exception_a_bounded_one() -> None:
    equal = fitted_length_term(HARD, torch.full((4, 2), 9), BOTH)
    assert equal.logit(torch.tensor([0.0, 5.0])).tolist() == [0.0, 0.0]
    always = fitted_length_term(HARD, torch.tensor([[2, 1]]).repeat(4, 1), BOTH)
    assert always.weight == pytest.approx(STEEPEST)


def planted(liking: float, quality_by_length: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Answers' features (quality, length in deviations), their lengths, and the scores of a judge that likes length by 1.5."""
    generator = torch.Generator().manual_seed(0)
    lengths_BK = torch.randint(20, 301, (300, 4), generator=generator)
    size_BK = (lengths_BK - 160) / 115
    quality_BK = torch.randn(300, 4, generator=generator) + quality_by_length * size_BK
    return torch.stack([quality_BK, size_BK], -1), lengths_BK, liking * quality_BK + 1.5 * size_BK


def learned(features_BKF: Tensor, lengths_BK: Tensor, scores_BK: Tensor, debiased: bool) -> list[float]:
    """The weights of a linear reward."""
    valid_BK = torch.ones_like(lengths_BK, dtype=torch.bool)
    term = fitted_length_term(scores_BK, lengths_BK, valid_BK, labels="soft")
    term_BKK = term.logit(differences(lengths_BK.float())) if debiased else None
    weights_F = torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights_F], max_iter=50)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = bradley_terry_loss(features_BKF @ weights_F, scores_BK, valid_BK, labels="soft", term_BKK=term_BKK).value
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return weights_F.tolist()


@pytest.mark.parametrize(("liking", "left"), [(0.5, 0.15), (1.0, 0.3)])
def test_of_a_judge_that_likes_length_the_reward_learns_quality(liking: float, left: float) -> None:
    """What is left of the slope grows with the part of the preferences that the reward itself explains."""
    quality, size = learned(*planted(liking), debiased=False)
    assert (quality, size) == pytest.approx((liking, 1.5), abs=1e-3)  # the judge's own weights
    quality, size = learned(*planted(liking), debiased=True)
    assert quality == pytest.approx(liking, rel=0.05)
    assert abs(size) < left * 1.5


def test_quality_that_comes_with_length_is_learned_too() -> None:
    quality, size = learned(*planted(0.5, quality_by_length=0.5), debiased=True)
    assert quality == pytest.approx(0.5, rel=0.05)
    assert abs(size) < 0.1
