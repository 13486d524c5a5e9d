"""The sampled form against the full reverse KL, whose gradient is its mean."""

import math

import pytest
import torch
from torch import Tensor

from aligndistill.objectives.divergences import Dense, divergence, gradient_scale
from aligndistill.objectives.on_policy_distil import sampled_reverse_kl

UNCLIPPED = 1e9


def models(vocabulary: int = 7) -> tuple[Tensor, Tensor]:
    """The student's and the teacher's logits at one position."""
    generator = torch.Generator().manual_seed(0)
    one_V, other_V = torch.randn(2, vocabulary, generator=generator, dtype=torch.float64)
    return one_V, other_V


def gradients(student_V: Tensor, teacher_V: Tensor, tokens_N: Tensor, temperature: float, clip: float = UNCLIPPED) -> Tensor:
    """gradients_NV: of the loss of each of these tokens alone, in the student's logits."""
    logits_NV = student_V.expand(len(tokens_N), -1).clone().requires_grad_()
    logps_NV, teacher_NV = ((one / temperature).log_softmax(-1) for one in (logits_NV, teacher_V.expand_as(logits_NV)))
    logps_N, teacher_N = (one.gather(-1, tokens_N.unsqueeze(-1)).squeeze(-1) for one in (logps_NV, teacher_NV))
    loss = sampled_reverse_kl(logps_N, teacher_N, advantage_clip=clip, scale=gradient_scale("reverse_kl", temperature))
    (gradient_NV,) = torch.autograd.grad(loss.value * len(tokens_N), logits_NV)
    return gradient_NV


def full_gradient(student_V: Tensor, teacher_V: Tensor, temperature: float) -> Tensor:
    logits_1V = student_V.unsqueeze(0).clone().requires_grad_()
    value_1 = divergence(logits_1V, Dense(teacher_V.unsqueeze(0)), "reverse_kl", temperature=temperature)
    (gradient_1V,) = torch.autograd.grad(value_1.sum() * gradient_scale("reverse_kl", temperature), logits_1V)
    return gradient_1V[0]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
def test_its_mean_over_the_students_tokens_is_the_full_gradient(temperature: float) -> None:
    """The exact expectation: each token, weighted by its probability."""
    student_V, teacher_V = models()
    each_VV = gradients(student_V, teacher_V, torch.arange(7), temperature)
    mean_V = ((student_V / temperature).softmax(-1).unsqueeze(-1) * each_VV).sum(0)
    torch.testing.assert_close(mean_V, full_gradient(student_V, teacher_V, temperature), rtol=1e-10, atol=1e-12)


def test_so_is_that_over_many_draws() -> None:
    """100,000 of them; six standard errors, which are measured on the draws."""
    student_V, teacher_V = models()
    tokens_N = torch.multinomial(student_V.softmax(-1), 100_000, True, generator=torch.Generator().manual_seed(1))
    drawn_NV = gradients(student_V, teacher_V, tokens_N, 1.0)
    error_V = drawn_NV.std(0) / math.sqrt(len(tokens_N))
    expected_V = full_gradient(student_V, teacher_V, 1.0)
    assert ((drawn_NV.mean(0) - expected_V).abs() < 6 * error_V).all()
    assert error_V.max() < 0.1 * expected_V.abs().max()  # else the line above would say little


def test_the_loss_is_an_estimate_of_the_kl() -> None:
    logprobs_S, teacher_S = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-3.0, -1.5, -0.5])
    loss = sampled_reverse_kl(logprobs_S, teacher_S, advantage_clip=10, scale=4.0)
    assert loss.value.item() == pytest.approx(4 * (2 - 0.5) / 3)
    assert loss.metrics["divergence"].tolist() == [2.0, -0.5, 0.0]
    assert loss.metrics["clip_fraction"].tolist() == [0, 0, 0]


def test_an_agreeing_teacher_moves_nothing() -> None:
    logprobs_S = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss = sampled_reverse_kl(logprobs_S, logprobs_S, advantage_clip=10, scale=1.0)
    loss.value.backward()
    assert loss.value.item() == 0
    assert logprobs_S.grad is not None
    assert logprobs_S.grad.tolist() == [0, 0]


def test_advantages_are_clipped_and_a_token_without_a_teacher_is_clipped_too() -> None:
    logprobs_S = torch.tensor([-1.0, -9.0, -1.0, -2.0], requires_grad=True)
    loss = sampled_reverse_kl(logprobs_S, torch.tensor([-9.0, -1.0, -math.inf, -3.0]), advantage_clip=5, scale=1.0)
    loss.value.backward()
    assert logprobs_S.grad is not None
    assert logprobs_S.grad.tolist() == pytest.approx([5 / 4, -5 / 4, 5 / 4, 1 / 4])
    assert loss.metrics["clip_fraction"].tolist() == [1, 1, 1, 0]
