"""From the likeliest first tokens of an answer to the log-probabilities of labels."""

import math
from collections.abc import Sequence

from pydantic import BaseModel

NEGLIGIBLE_SHARE = 1e-3


class TokenLogprob(BaseModel):
    """One of a position's likeliest tokens and its log-probability, nats."""

    token: str
    logprob: float


def label_logprobs(tokens: Sequence[TokenLogprob], labels: Sequence[str]) -> tuple[float, ...] | None:
    """The log-probability of each label as the first token, nats.

    Tokens that differ only in leading space are one label. A label that is not listed gets the probability that the list
    leaves over, or the smallest one listed if that is less: no label can have more.

    Returns:
        None where the tokens do not tell: no label is among them, or a label (`1`) has been seen that may go on to a longer
        one (`10`) which its tokenizer writes as several tokens, with more than a negligible share of the probability.
    """
    listed = [token for token in tokens if math.isfinite(token.logprob)]
    mass = {label: sum(math.exp(t.logprob) for t in listed if t.token.lstrip() == label) for label in labels}
    seen = sum(mass.values())
    if seen == 0:
        return None
    for label, probability in mass.items():
        longer_unseen = any(mass[other] == 0 for other in labels if other != label and other.startswith(label))
        if longer_unseen and probability > NEGLIGIBLE_SHARE * seen:
            return None
    smallest = min(math.exp(token.logprob) for token in listed)
    left_over = max(1.0 - sum(math.exp(token.logprob) for token in listed), 0.0)
    floor = max(min(left_over, smallest), math.ulp(0.0))
    return tuple(math.log(mass[label] or floor) for label in labels)
