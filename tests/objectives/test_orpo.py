import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from trl.experimental.orpo import ORPOTrainer

from aligndistill.objectives.orpo import LARGEST_LOGP, log_odds, orpo
from tests.objectives.test_dpo import log_sigmoid, one_prompt, some_pairs


def odds(logp: float) -> float:
    p = math.exp(logp)
    return math.log(p / (1 - p))


def test_all_pairs_by_hand() -> None:
    # Means per token: -2, -3, -0.5; the last is on the other side of log 1/2.
    loss = orpo(one_prompt([-10.0, -6.0, -2.0], [0.0] * 3, [2.0, 1.0, 0.0], [5, 2, 4]), odds_weight=0.1)
    pairs = [-log_sigmoid(odds(-2) - odds(-3)), -log_sigmoid(odds(-2) - odds(-0.5)), -log_sigmoid(odds(-3) - odds(-0.5))]
    assert loss.value.item() == pytest.approx(2 + 0.1 * sum(pairs) / 3)
    assert loss.metrics["sft_loss"].tolist() == [2.0]
    assert loss.metrics["rewards/margins"].tolist() == pytest.approx([0.1 * (1 - 1.5 - 2.5) / 3])


def test_soft_labels_mix_both_directions() -> None:
    ranked = one_prompt([-10.0, -6.0], [0.0] * 2, [1.5, 0.5], [5, 2])
    p, gap = 1 / (1 + math.exp(-1.0)), odds(-2) - odds(-3)
    expected = 2 - 0.1 * (p * log_sigmoid(gap) + (1 - p) * log_sigmoid(-gap))
    assert orpo(ranked, labels="soft").value.item() == pytest.approx(expected)


def test_equal_odds_cost_log_two() -> None:
    ranked = one_prompt([-10.0, -4.0], [0.0] * 2, [1.0, 0.0], [5, 2])
    assert orpo(ranked, odds_weight=0.5).value.item() == pytest.approx(2 + 0.5 * math.log(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logp", [0.0, -1e-7, -1e-6, -1e-3, -0.6931, -0.6932, -50.0, -1e4])
def test_odds_and_their_gradients_are_finite_and_exact(logp: float, dtype: torch.dtype) -> None:
    value = torch.tensor(logp, dtype=dtype, requires_grad=True)
    found = log_odds(value)
    (gradient,) = torch.autograd.grad(found, value)
    clamped = min(float(torch.tensor(logp, dtype=dtype)), LARGEST_LOGP)
    exact = clamped - math.log(-math.expm1(clamped)) if clamped > -745 else clamped
    single = dtype == torch.float32
    assert found.item() == pytest.approx(exact, rel=1e-5 if single else 1e-12, abs=1e-6 if single else 1e-12)
    slope = 0.0 if logp > LARGEST_LOGP else -1 / math.expm1(clamped)
    assert gradient.item() == pytest.approx(slope, rel=1e-3 if single else 1e-9)


@pytest.mark.parametrize("means", [(-1e-7, -50.0), (-50.0, -1e-7), (0.0, 0.0), (-50.0, -50.0)])
def test_the_loss_is_finite_at_both_ends(means: tuple[float, float]) -> None:
    policy_BK = torch.tensor([means], dtype=torch.float32, requires_grad=True)
    ranked = one_prompt([0.0, 0.0], [0.0] * 2, [1.0, 0.0])
    loss = orpo(type(ranked)(policy_BK, None, ranked.scores_BK.float(), ranked.lengths_BK, ranked.valid_BK))
    (gradient_BK,) = torch.autograd.grad(loss.value, policy_BK)
    assert loss.value.isfinite()
    assert gradient_BK.isfinite().all()


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_two_answers_a_prompt_cost_what_trl_charges(weight: float) -> None:
    ranked = some_pairs()
    ranked.policy_BK.requires_grad_()
    ours = orpo(ranked, odds_weight=weight)
    mean_logp_BK = ranked.policy_BK / ranked.lengths_BK
    trainer = SimpleNamespace(beta=weight, accelerator=SimpleNamespace(device="cpu"))
    ratios, chosen, rejected, *_ = ORPOTrainer.odds_ratio_loss(trainer, mean_logp_BK[:, 0], mean_logp_BK[:, 1])
    theirs: Tensor = -mean_logp_BK[:, 0].mean() - ratios.mean()  # as in its get_batch_loss_metrics, but for the prompt's NLL
    torch.testing.assert_close(ours.value, theirs, rtol=1e-6, atol=0)  # TRL casts to float32
    (our_gradient,) = torch.autograd.grad(ours.value, ranked.policy_BK, retain_graph=True)
    (their_gradient,) = torch.autograd.grad(theirs, ranked.policy_BK)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(ours.metrics["rewards/chosen"], chosen, rtol=1e-6, atol=0, check_dtype=False)
    torch.testing.assert_close(ours.metrics["rewards/rejected"], rejected, rtol=1e-6, atol=0, check_dtype=False)
