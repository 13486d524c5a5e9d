"""Divergences between a teacher's next-token distribution p and a student's q, per position, with their gradients written out.

With z the student's logits, T = 1, and c(g)_i = q_i (g_i - sum_j q_j g_j), which is dD/dz_i where g_i = dD/dq_i:

| kind           | value, nats                                   | dD/dz_i                                             |
| -------------- | --------------------------------------------- | --------------------------------------------------- |
| `forward_kl`   | KL(p || q)                                    | q_i - p_i                                           |
| `reverse_kl`   | KL(q || p)                                    | c(log(q / p))_i                                     |
| `jsd`          | beta KL(p || m) + (1 - beta) KL(q || m),      | (1 - beta) c(log(q / m))_i                          |
|                | m = beta p + (1 - beta) q                     |                                                     |
| `skew_forward` | KL(p || m), m = skew p + (1 - skew) q         | c(-(1 - skew) p / m)_i                              |
| `skew_reverse` | KL(q || m), m = (1 - skew) p + skew q         | c(log(q / m) - skew q / m)_i                        |
| `tvd`          | 1/2 sum |p - q|                               | c(sign(q - p) / 2)_i                                |
| `akl`          | w KL(p || q) + (1 - w) KL(q || p)             | w (q_i - p_i) + (1 - w) c(log(q / p))_i             |

`jsd` is the generalised divergence of Agarwal et al. 2023 (GKD, arXiv:2306.13649), eq. 1; the skew forms are Ko et al. 2024
(DistiLLM, arXiv:2402.03898), section 3.1. `akl` is Wu et al. 2024 (arXiv:2404.02657): w is the head's share of sum |p - q|, and the
head holds the teacher's likeliest tokens whose cumulative probability is at most `HEAD_MASS`, the first one always. w has no
gradient, as in their code.

At a temperature T both distributions are those of logits / T, and dD/dz gets the factor 1 / T (see `gradient_scale`).

A teacher of which only the k likeliest tokens are known is compared on k + 1 classes: these tokens, and all others as one (`TopK`).
That is a divergence of coarser distributions: never negative, for all kinds but `akl` never above the full one, 0 with gradient 0
where student and teacher agree. A plain sum over k tokens is none of this: at q = p it still has a gradient.

Everything is computed in float32, or in float64 where the logits have it.

Shapes: S positions, V vocabulary, C classes, k known tokens.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal["forward_kl", "reverse_kl", "jsd", "skew_forward", "skew_reverse", "tvd", "akl"]

HEAD_MASS = 0.5
"""mu of `akl`, as in its paper."""

BLOCK_ELEMENTS = 2**20
"""The most values of a temporary tensor, positions * V: they then fit into a processor's cache."""


@dataclass(frozen=True)
class Dense:
    """A teacher's logits for the whole vocabulary; -inf is a probability of 0."""

    logits_SV: Tensor


@dataclass(frozen=True)
class TopK:
    """What is known of a teacher of which the k likeliest tokens were kept.

    Attributes:
        ids_Sk: those tokens, no two the same.
        logps_Sk: their log-probabilities at temperature 1, nats.
        log_tail_S: the log of the probability of all other tokens together, nats; -inf where it is 0.
    """

    ids_Sk: Tensor
    logps_Sk: Tensor
    log_tail_S: Tensor


def divergence(
    logits_SV: Tensor, target: Dense | TopK, kind: Kind, *, beta: float = 0.5, skew: float = 0.1, temperature: float = 1.0
) -> Tensor:
    """values_S: how far the student is from the teacher at each position, nats (`tvd`: a probability).

    No gradient flows to the target.

    Args:
        logits_SV: the student's, before the temperature.
        beta: the teacher's share in the mixture of `jsd`, between 0 and 1.
        skew: the share of p in the mixture of `skew_forward`, of q in that of `skew_reverse`, between 0 and 1.
        temperature: divides both models' logits.

    Raises:
        ValueError: a `TopK` at another temperature than 1: how the tail's mass spreads over its tokens is not known.
    """
    if isinstance(target, TopK) and temperature != 1.0:
        raise ValueError("the k likeliest tokens have no distribution at another temperature than 1: their tail is not known")
    logits_SV = logits_SV if logits_SV.dtype == torch.float64 else logits_SV.float()
    values_S: Tensor = _Divergence.apply(logits_SV, target, _Measure(kind, beta, skew), temperature)
    return values_S


def gradient_scale(kind: Kind, temperature: float) -> float:
    """What a divergence is multiplied by, so that its gradient keeps its size when the temperature changes: T^2, of `tvd` T.

    Differences of probabilities shrink as 1 / T. All kinds but `tvd` are quadratic in them (Hinton et al. 2015, arXiv:1503.02531,
    section 2.1); `tvd` is linear.
    """
    return temperature if kind == "tvd" else temperature**2


FIDELITY = ("kl_forward_nats", "kl_reverse_nats", "entropy_nats", "agreement")
"""What `fidelity` measures."""


@torch.no_grad()
def fidelity(logits_SV: Tensor, teacher_SV: Tensor, temperature: float = 1.0) -> Tensor:
    """values_SX, X as in `FIDELITY`: KL(p || q), KL(q || p), the student's entropy, and 1 where both have one likeliest token.

    Args:
        logits_SV, teacher_SV: the student's and the teacher's, before the temperature; -inf is a probability of 0 in both.
    """
    found = []
    rows = max(BLOCK_ELEMENTS // logits_SV.shape[-1], 1)
    for one_SV, other_SV in zip(logits_SV.split(rows), teacher_SV.split(rows), strict=True):
        log_q_SV, log_p_SV = (_log_softmax(logits.to(logits_SV.dtype), temperature) for logits in (one_SV, other_SV))
        p_SV, q_SV, ratio_SV = log_p_SV.exp(), log_q_SV.exp(), log_p_SV - log_q_SV
        agree_S = (log_q_SV.argmax(-1) == log_p_SV.argmax(-1)).to(log_q_SV.dtype)
        found.append(torch.stack([_mean(p_SV, ratio_SV), -_mean(q_SV, ratio_SV), -_mean(q_SV, log_q_SV), agree_S], -1))
    return torch.cat(found)


@dataclass(frozen=True)
class _Measure:
    """A kind with its settings."""

    kind: Kind
    beta: float
    skew: float

    def __call__(self, log_p_SC: Tensor, log_q_SC: Tensor, tail: bool) -> tuple[Tensor, Tensor]:
        """Values, and their gradient in the student's logits of the classes. `tail`: the last class holds several tokens."""
        p_SC, q_SC = log_p_SC.exp(), log_q_SC.exp()
        match self.kind:
            case "forward_kl":
                return _mean(p_SC, log_p_SC - log_q_SC), q_SC - p_SC
            case "reverse_kl":
                ratio_SC = log_q_SC - log_p_SC
                return _mean(q_SC, ratio_SC), _centred(q_SC, ratio_SC)
            case "jsd":
                log_m_SC = _log_mixture(log_p_SC, log_q_SC, self.beta)
                ratio_SC = log_q_SC - log_m_SC
                values_S = self.beta * _mean(p_SC, log_p_SC - log_m_SC) + (1 - self.beta) * _mean(q_SC, ratio_SC)
                return values_S, _centred(q_SC, ratio_SC).mul_(1 - self.beta)
            case "skew_forward":
                ratio_SC = log_p_SC - _log_mixture(log_p_SC, log_q_SC, self.skew)
                return _mean(p_SC, ratio_SC), _centred(q_SC, ratio_SC.exp()).mul_(self.skew - 1)
            case "skew_reverse":
                ratio_SC = log_q_SC - _log_mixture(log_p_SC, log_q_SC, 1 - self.skew)
                return _mean(q_SC, ratio_SC), _centred(q_SC, ratio_SC - self.skew * ratio_SC.exp())
            case "tvd":
                difference_SC = q_SC - p_SC
                return 0.5 * difference_SC.abs().sum(-1), _centred(q_SC, 0.5 * difference_SC.sign())
            case "akl":
                weight_S, ratio_SC = _head_share(p_SC, q_SC, tail), log_q_SC - log_p_SC
                values_S = weight_S * _mean(p_SC, -ratio_SC) + (1 - weight_S) * _mean(q_SC, ratio_SC)
                weight_S1 = weight_S.unsqueeze(-1)
                return values_S, weight_S1 * (q_SC - p_SC) + (1 - weight_S1) * _centred(q_SC, ratio_SC)


class _Divergence(torch.autograd.Function):
    """Computes values and gradient a block of positions at a time; the gradient is all that it keeps for the backward pass."""

    @staticmethod
    def forward(ctx: Any, logits_SV: Tensor, target: Dense | TopK, measure: _Measure, temperature: float) -> Tensor:
        values_S, gradient_SV = logits_SV.new_empty(len(logits_SV)), torch.empty_like(logits_SV)
        rows = max(BLOCK_ELEMENTS // logits_SV.shape[-1], 1)
        for start in range(0, len(logits_SV), rows):
            block = slice(start, start + rows)
            log_q_SV = _log_softmax(logits_SV[block], temperature)
            if isinstance(target, Dense):
                log_p_SV = _log_softmax(target.logits_SV[block].to(logits_SV.dtype), temperature)
                values_S[block], gradient_SV[block] = measure(log_p_SV, log_q_SV, tail=False)
            else:
                known = TopK(target.ids_Sk[block], target.logps_Sk[block], target.log_tail_S[block])
                values_S[block], gradient_SV[block] = _with_tail(log_q_SV, known, measure)
        ctx.save_for_backward(gradient_SV if temperature == 1.0 else gradient_SV.div_(temperature))
        return values_S

    @staticmethod
    def backward(ctx: Any, g_S: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (gradient_SV,) = ctx.saved_tensors
        return gradient_SV * g_S.unsqueeze(-1), None, None, None


def _with_tail(log_q_SV: Tensor, target: TopK, measure: _Measure) -> tuple[Tensor, Tensor]:
    """Values and gradient on k + 1 classes: the known tokens, and all others as one.

    The others' log-probability is their own log-sum-exp: 1 minus the sum of the known ones would lose every digit where little is
    left. A token of the tail moves its class in proportion to its share of it.
    """
    others_SV = log_q_SV.scatter(-1, target.ids_Sk, -math.inf)
    log_tail_S1 = others_SV.logsumexp(-1, keepdim=True)
    log_p_SC = torch.cat([target.logps_Sk, target.log_tail_S.unsqueeze(-1)], -1).to(log_q_SV.dtype)
    log_q_SC = torch.cat([log_q_SV.gather(-1, target.ids_Sk), log_tail_S1], -1)
    values_S, gradient_SC = measure(log_p_SC, log_q_SC, tail=True)
    share_SV = (others_SV - log_tail_S1.masked_fill(log_tail_S1 == -math.inf, 0.0)).exp_()
    gradient_SV = share_SV.mul_(gradient_SC[:, -1:]).scatter_(-1, target.ids_Sk, gradient_SC[:, :-1])
    return values_S, gradient_SV


def _log_softmax(logits_SV: Tensor, temperature: float) -> Tensor:
    return (logits_SV if temperature == 1.0 else logits_SV / temperature).log_softmax(-1)


def _log_mixture(log_p_SC: Tensor, log_q_SC: Tensor, share: float) -> Tensor:
    """log(share p + (1 - share) q)."""
    return torch.logaddexp(log_p_SC + math.log(share), log_q_SC + math.log1p(-share))


def _weighted(weights_SC: Tensor, values_SC: Tensor) -> Tensor:
    """weights * values, and 0 where the weight is 0, whatever the value: a log-ratio is infinite or undefined there."""
    return (weights_SC * values_SC).masked_fill_(weights_SC == 0, 0.0)


def _mean(weights_SC: Tensor, values_SC: Tensor) -> Tensor:
    return _weighted(weights_SC, values_SC).sum(-1)


def _centred(q_SC: Tensor, values_SC: Tensor) -> Tensor:
    """c(values): the gradient in the logits, from that in the probabilities."""
    return _weighted(q_SC, values_SC - _mean(q_SC, values_SC).unsqueeze(-1))


def _head_share(p_SC: Tensor, q_SC: Tensor, tail: bool) -> Tensor:
    """The share of sum |p - q| at the teacher's likeliest tokens: w of `akl`. A class of several tokens is no likely token."""
    ranked_SC, order_SC = (p_SC[:, :-1] if tail else p_SC).sort(-1, descending=True)
    in_head_SC = ranked_SC.cumsum(-1) <= HEAD_MASS
    in_head_SC[:, 0] = True
    error_SC = (p_SC - q_SC).abs()
    head_S = error_SC.gather(-1, order_SC).masked_fill_(~in_head_SC, 0.0).sum(-1)
    return head_S / error_SC.sum(-1).clamp(min=torch.finfo(p_SC.dtype).tiny)
