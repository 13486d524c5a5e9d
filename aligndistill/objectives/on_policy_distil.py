"""On-policy distillation by sampled tokens: a policy gradient whose reward for a token is what the teacher thinks of it.

    advantage_t = clip(log p(y_t) - log q(y_t), -c, c)
    loss        = mean over tokens of -s advantage_t * q(y_t) / stop_gradient(q(y_t))

p is the teacher, q the student that wrote y. The advantage is of that token alone (discount 0), not whitened and without a
baseline, as in Lu and Thinking Machines Lab 2025 ("On-Policy Distillation"). Over draws y_t ~ q the mean of the gradient is that of
KL(q || p) at this position, as long as nothing is clipped. (Differentiating the estimate log q(y) - log p(y) itself gives 0 in the
mean, and the k3 estimate gives the gradient of KL(p || q).)

An update is one step, so the student that learns is the one that sampled, and the ratio of both is 1. The full form needs no
function of its own: it is `distil` without a supervised term, on the student's own answers.

Shapes: S response tokens.
"""

from torch import Tensor

from aligndistill.objectives.inputs import Loss


def sampled_reverse_kl(logprobs_S: Tensor, teacher_S: Tensor, *, advantage_clip: float, scale: float) -> Loss:
    """The loss of a batch. Unclipped, its value is an estimate of KL(q || p), nats a token, times the scale.

    Metrics, one number for each token: `divergence`, that estimate; `clip_fraction`, 1 where the advantage was clipped.

    Args:
        logprobs_S: the student's log-probability of each token that it sampled, nats.
        teacher_S: the teacher's; -inf where it cannot say the token. No gradient flows to it.
        advantage_clip: c, nats.
        scale: `divergences.gradient_scale` of `reverse_kl` and the temperature of both.
    """
    before_S = logprobs_S.detach()
    wanted_S = teacher_S.detach() - before_S
    advantages_S = wanted_S.clamp(-advantage_clip, advantage_clip)
    return Loss(
        value=-(scale * advantages_S * (logprobs_S - before_S).exp()).mean(),
        metrics={"divergence": -advantages_S, "clip_fraction": (wanted_S != advantages_S).to(before_S.dtype)},
    )
