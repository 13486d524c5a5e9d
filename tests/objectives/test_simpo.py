import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from trl.experimental.cpo import CPOTrainer

from aligndistill.objectives.inputs import Ranked
from aligndistill.objectives.simpo import simpo
from tests.objectives.test_dpo import log_sigmoid, one_prompt, some_pairs


def three(scores: list[float]) -> Ranked:
    """Means per token of -2, -3 and -1."""
    return one_prompt([-10.0, -6.0, -4.0], [0.0] * 3, scores, [5, 2, 4])


def test_all_pairs_by_hand() -> None:
    loss = simpo(three([2.0, 1.0, 0.0]), beta=2.0, gamma_beta_ratio=0.5)
    gaps = [2 * (-2 - -3), 2 * (-2 - -1), 2 * (-3 - -1)]
    assert loss.value.item() == pytest.approx(sum(-log_sigmoid(gap - 1) for gap in gaps) / 3)
    assert {key: value.nanmean().item() for key, value in loss.metrics.items()} == pytest.approx(
        {
            "rewards/chosen": 2 * (-2 - 2 - 3) / 3,
            "rewards/rejected": 2 * (-3 - 1 - 1) / 3,
            "rewards/accuracies": 1 / 3,
            "rewards/margins": sum(gaps) / 3,
            "logps/chosen": (-10 - 10 - 6) / 3,
            "logps/rejected": (-6 - 4 - 4) / 3,
        }
    )


def test_soft_labels_give_each_direction_its_own_margin() -> None:
    ranked = one_prompt([-10.0, -6.0], [0.0] * 2, [1.5, 0.5], [5, 2])
    p, gap = 1 / (1 + math.exp(-1.0)), 2 * (-2 - -3)
    expected = -(p * log_sigmoid(gap - 1) + (1 - p) * log_sigmoid(-gap - 1))
    assert simpo(ranked, labels="soft").value.item() == pytest.approx(expected)


def test_a_tie_is_a_soft_pair_that_costs_the_same_in_either_order() -> None:
    tied = one_prompt([-10.0, -6.0], [0.0] * 2, [1.0, 1.0], [5, 2])
    swapped = one_prompt([-6.0, -10.0], [0.0] * 2, [1.0, 1.0], [2, 5])
    expected = -(log_sigmoid(2 - 1) + log_sigmoid(-2 - 1)) / 2
    assert simpo(tied, labels="soft").value.item() == pytest.approx(expected)
    assert simpo(swapped, labels="soft").value.item() == pytest.approx(expected)
    assert simpo(tied).value.item() == 0


def test_the_sft_term_is_the_best_answers_nll_per_token() -> None:
    ranked = three([2.0, 1.0, 0.0])
    loss = simpo(ranked, sft_weight=0.3)
    assert loss.value.item() == pytest.approx(simpo(ranked).value.item() + 0.3 * 2)
    assert loss.metrics["sft_loss"].tolist() == [2.0]
    assert "sft_loss" not in simpo(ranked).metrics


def test_tied_answers_have_no_chosen_one_to_imitate() -> None:
    tied = three([1.0, 1.0, 1.0])
    assert simpo(tied, sft_weight=0.3).value.item() == 0
    assert simpo(tied, labels="soft", sft_weight=0.3).value.item() == simpo(tied, labels="soft").value.item()


def test_repeating_an_answers_tokens_at_their_mean_changes_nothing() -> None:
    once, twice = three([2.0, 1.0, 0.0]), three([2.0, 1.0, 0.0])
    twice = dataclasses.replace(twice, policy_BK=twice.policy_BK * 2, lengths_BK=twice.lengths_BK * 2)
    torch.testing.assert_close(simpo(twice).value, simpo(once).value, rtol=1e-12, atol=0)


def test_the_reference_is_not_read() -> None:
    ranked = dataclasses.replace(three([2.0, 1.0, 0.0]), reference_BK=None)
    assert simpo(ranked).value.item() == simpo(three([2.0, 1.0, 0.0])).value.item()


@pytest.mark.parametrize(("beta", "ratio"), [(2.0, 0.5), (10.0, 0.3), (2.5, 0.0)])
def test_two_answers_a_prompt_cost_what_trl_charges(beta: float, ratio: float) -> None:
    ranked = some_pairs()
    ranked.policy_BK.requires_grad_()
    ours = simpo(ranked, beta=beta, gamma_beta_ratio=ratio).value
    trainer = SimpleNamespace(
        beta=beta,
        alpha=0.0,
        loss_type="simpo",
        simpo_gamma=beta * ratio,
        label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )
    mean_logp_BK = ranked.policy_BK / ranked.lengths_BK
    losses, chosen, rejected = CPOTrainer.cpo_loss(trainer, mean_logp_BK[:, 0], mean_logp_BK[:, 1])
    torch.testing.assert_close(ours, losses.mean(), rtol=1e-12, atol=0)
    (our_gradient,) = torch.autograd.grad(ours, ranked.policy_BK, retain_graph=True)
    (their_gradient,) = torch.autograd.grad(losses.mean(), ranked.policy_BK)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-12, atol=1e-15)
    metrics = simpo(ranked, beta=beta, gamma_beta_ratio=ratio).metrics
    torch.testing.assert_close(metrics["rewards/chosen"], chosen, rtol=1e-12, atol=0)
    torch.testing.assert_close(metrics["rewards/rejected"], rejected, rtol=1e-12, atol=0)
