import math

import pytest
import torch

from aligndistill.objectives.sppo import sppo
from tests.objectives.test_dpo import one_prompt


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_three_answers_by_hand() -> None:
    # Log-ratios 1, -1 and 2; each answer is compared with all three, itself included.
    ranked = one_prompt([-10.0, -12.0, -7.0], [-11.0, -11.0, -9.0], [2.0, 1.0, 0.0])
    wins = [
        (0.5 + sigmoid(1) + sigmoid(2)) / 3,
        (sigmoid(-1) + 0.5 + sigmoid(1)) / 3,
        (sigmoid(-2) + sigmoid(-1) + 0.5) / 3,
    ]
    expected = sum((ratio - 20 * (win - 0.5)) ** 2 for ratio, win in zip((1, -1, 2), wins, strict=True)) / 3
    loss = sppo(ranked, eta=20.0)
    assert loss.value.item() == pytest.approx(expected)
    assert loss.metrics["rewards/margins"].tolist() == pytest.approx([(2 - 1 - 3) / 20 / 3])


def test_two_answers_cost_what_the_released_loss_charges() -> None:
    # uclaml/SPPO, sppo/trainer.py, sppo_loss: beta is 1 / eta, and the probabilities come with the data.
    ranked = one_prompt([-10.0, -12.0], [-11.0, -11.0], [1.5, 0.5])
    beta, win = 0.001, (0.5 + sigmoid(1.0)) / 2
    loss_w = (1 - (1 / beta) * (win - 0.5)) ** 2
    loss_l = (-1 - (1 / beta) * ((1 - win) - 0.5)) ** 2
    assert sppo(ranked).value.item() == pytest.approx((loss_w + loss_l) / 2)


def test_the_optimum_is_eta_times_the_advantage() -> None:
    scores, eta = [2.0, 0.5, -1.0], 30.0
    wins = [sum(sigmoid(score - other) for other in scores) / 3 for score in scores]
    ranked = one_prompt([eta * (win - 0.5) - 7 for win in wins], [-7.0] * 3, scores)
    ranked.policy_BK.requires_grad_()
    loss = sppo(ranked, eta=eta)
    (gradient_BK,) = torch.autograd.grad(loss.value, ranked.policy_BK)
    assert loss.value.item() < 1e-20
    assert gradient_BK.abs().max() < 1e-10
    assert sum(eta * (win - 0.5) for win in wins) == pytest.approx(0, abs=1e-12)  # the advantages of a prompt sum to zero


def test_tied_answers_are_drawn_to_the_reference() -> None:
    ranked = one_prompt([-10.0, -12.0], [-11.0, -11.0], [1.0, 1.0])
    assert sppo(ranked).value.item() == pytest.approx(1.0)
