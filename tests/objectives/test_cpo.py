import dataclasses
from types import SimpleNamespace

import pytest
import torch
from trl.experimental.cpo import CPOTrainer

from aligndistill.objectives.cpo import cpo
from aligndistill.objectives.dpo import dpo
from tests.objectives.test_dpo import log_sigmoid, one_prompt, some_pairs
from tests.objectives.test_pairs import a_batch

THREE = one_prompt([-10.0, -12.0, -7.0], [0.0] * 3, [2.0, 1.0, 0.0], [5, 4, 2])


def test_all_pairs_by_hand() -> None:
    loss = cpo(THREE, beta=0.5, sft_weight=0.4)
    pairs = [-log_sigmoid(0.5 * gap) for gap in (-10 + 12, -10 + 7, -12 + 7)]
    assert loss.value.item() == pytest.approx(sum(pairs) / 3 + 0.4 * 10 / 5)
    assert loss.metrics["sft_loss"].tolist() == [2.0]
    assert loss.metrics["rewards/margins"].tolist() == pytest.approx([0.5 * (2 - 3 - 5) / 3])


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_it_is_dpo_with_a_uniform_reference_and_no_nll(labels: str) -> None:
    ranked = a_batch()
    uniform = dataclasses.replace(ranked, reference_BK=torch.zeros_like(ranked.policy_BK))
    ours = cpo(ranked, beta=0.1, labels=labels, sft_weight=0.0)  # type: ignore[arg-type]
    theirs = dpo(uniform, beta=0.1, labels=labels)  # type: ignore[arg-type]
    torch.testing.assert_close(ours.value, theirs.value, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.metrics, theirs.metrics, rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_two_answers_a_prompt_cost_what_trl_charges(beta: float) -> None:
    ranked = some_pairs()
    ranked.policy_BK.requires_grad_()
    ours = cpo(ranked, beta=beta, sft_weight=0.0).value
    trainer = SimpleNamespace(
        beta=beta, alpha=0.0, loss_type="sigmoid", label_smoothing=0.0, accelerator=SimpleNamespace(device="cpu")
    )
    losses, _, _ = CPOTrainer.cpo_loss(trainer, ranked.policy_BK[:, 0], ranked.policy_BK[:, 1])
    torch.testing.assert_close(ours, losses.mean(), rtol=1e-12, atol=0)
    (our_gradient,) = torch.autograd.grad(ours, ranked.policy_BK)
    (their_gradient,) = torch.autograd.grad(losses.mean(), ranked.policy_BK)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-12, atol=1e-15)
