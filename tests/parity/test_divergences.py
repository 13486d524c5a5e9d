"""TRL's two implementations of the generalised Jensen-Shannon divergence: the same values and gradients."""

import pytest
import torch
from torch import Tensor
from trl.experimental.gkd import GKDTrainer
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from aligndistill.objectives.divergences import Dense, Kind, divergence

S, V = 7, 40


def kind_of(beta: float) -> Kind:
    """TRL's ends of beta are the two KLs."""
    ends: dict[float, Kind] = {0.0: "forward_kl", 1.0: "reverse_kl"}
    return ends.get(beta, "jsd")


def random(seed: int, *sizes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_gkd(beta: float, temperature: float) -> None:
    student_SV, teacher_SV = (2 * random(seed, S, V) for seed in (0, 1))
    gradients, losses = [], []
    for ours in (True, False):
        logits_SV = student_SV.clone().requires_grad_()
        if ours:
            loss = divergence(logits_SV, Dense(teacher_SV), kind_of(beta), beta=beta, temperature=temperature).sum()
        else:
            loss = GKDTrainer.generalized_jsd_loss(logits_SV, teacher_SV, beta=beta, temperature=temperature, reduction="sum")
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, logits_SV)[0])
    # TRL's beta is a float64 tensor here, as the logits are: both sides round alike.
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_chunked(beta: float, temperature: float) -> None:
    """From hidden states through both heads, in float32."""
    teacher_SH, teacher_VH = random(2, S, 6, dtype=torch.float32), random(3, V, 6, dtype=torch.float32)
    found = []
    for ours in (True, False):
        student_SH = random(4, S, 5, dtype=torch.float32).requires_grad_()
        student_VH = random(5, V, 5, dtype=torch.float32).requires_grad_()
        if ours:
            target = Dense(teacher_SH @ teacher_VH.T)
            values_S = divergence(student_SH @ student_VH.T, target, kind_of(beta), beta=beta, temperature=temperature)
        else:
            values_S, _ = ChunkedDivergenceFunction.apply(
                student_SH, student_VH, None, teacher_SH, teacher_VH, None, beta, temperature
            )
        (values_S * torch.arange(1, S + 1)).sum().backward()
        found.append((values_S.detach(), student_SH.grad, student_VH.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
