"""Win rates that length and style cannot buy: what the judge would prefer between answers of the same length.

A logistic regression of the win probabilities on the difference of lengths, read where that difference is 0, as AlpacaEval 2 does
(Dubois et al. 2024, "Length-Controlled AlpacaEval", arXiv:2404.04475). The differences are lengths in tokens here, not characters;
there is no term for a prompt's difficulty; the slopes have a ridge penalty instead of a lasso chosen by cross-validation; and the
interval is a bootstrap over prompts that fits everything again, where the released code prints the spread of its predictions.

Shapes: N comparisons, F style features, D resamples, K = 2 + F coefficients (intercept, length, style).
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aligndistill.evaluation.intervals import Mean, between_quantiles, times_drawn
from aligndistill.records import Record

if TYPE_CHECKING:  # numpy is imported late, as in `intervals`
    import numpy as np
    from numpy.typing import NDArray

    from aligndistill.evaluation.intervals import FloatArray

RIDGE = 1.0  # on the slopes, for N comparisons whose weights sum to the number of prompts
LARGE_DIFFERENCE = 0.1  # between the win rate and the controlled one
FAR_FROM_EQUAL = 1.0  # mean difference of lengths, in its standard deviations
_NEWTON_STEPS = 30

HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
LIST_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


class Controlled(Record):
    """A controlled win rate, and what to know of it.

    Attributes:
        win_rate: None where the comparisons do not determine it.
        warning: why it is None, or cannot be trusted.
    """

    win_rate: Mean | None
    warning: str | None = None


def style_differences(ours: str, theirs: str) -> tuple[float, float, float]:
    """(a - b) / (a + b + 1) of the numbers of headers, list items and bold phrases, as Chatbot Arena's style control has them."""
    counts = [(len(form.findall(ours)), len(form.findall(theirs))) for form in (HEADER, LIST_ITEM, BOLD)]
    headers, items, bold = ((a - b) / (a + b + 1) for a, b in counts)
    return headers, items, bold


def controlled_win_rate(
    probabilities: Sequence[float],
    length_differences: Sequence[float],
    prompts: Sequence[str],
    styles: Sequence[Sequence[float]] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Controlled:
    """The win rate between answers of equal length, and of equal style if `styles` are given, with its bootstrap interval.

    The length enters as tanh(difference / standard deviation of the differences). A prompt's comparisons share a weight of 1, so
    that with slopes of 0 the result is the plain win rate. Simulated intervals cover 85 to 92 % where 95 % are meant
    (400 prompts).

    Args:
        probabilities: that ours wins, one for each comparison; hard verdicts are 1, 0 and 0.5.
        length_differences: ours minus theirs, tokens.
        prompts: which prompt each comparison is of; these are resampled.
        styles: features of each comparison that are 0 where the styles are equal.

    Raises:
        ValueError: no comparisons.
    """
    import numpy as np

    p_N, length_N = np.asarray(probabilities, float), np.asarray(length_differences, float)
    if len(p_N) == 0:
        raise ValueError("cannot compute a win rate: there are no comparisons")
    style_NF = np.zeros((len(p_N), 0)) if styles is None else np.asarray(styles, float)
    names, prompt_N, times_C = np.unique(np.asarray(prompts), return_inverse=True, return_counts=True)
    weight_N = 1 / times_C[prompt_N]
    if length_N.min() > 0 or length_N.max() < 0:
        word = "longer" if length_N.min() > 0 else "shorter"
        unknown = f"all answers are {word} than the start's: the win rate at equal length is unknown"
        return Controlled(win_rate=None, warning=unknown)

    value = float(_at_equal_length(p_N, length_N, style_NF, weight_N[None])[0])
    draws = times_drawn(seed, resamples, len(names), cells=len(p_N) * (2 + style_NF.shape[1]))
    rates = [_at_equal_length(p_N, length_N, style_NF, drawn_DC[:, prompt_N] * weight_N) for drawn_DC in draws]
    rate = between_quantiles(value, np.concatenate(rates), len(names))
    return Controlled(win_rate=rate, warning=_warning(value, float(np.average(p_N, weights=weight_N)), length_N))


def rates_at_equal_length(
    probabilities: Sequence[float], length_differences: Sequence[float], prompt_N: "NDArray[np.int64]", drawn_DP: "FloatArray"
) -> "FloatArray":
    """The win rate between answers of equal length in given resamples of the prompts, (D,).

    Args:
        prompt_N: the number of each comparison's prompt.
        drawn_DP: how often each prompt is drawn in each resample.
    """
    import numpy as np

    p_N, length_N = np.asarray(probabilities, float), np.asarray(length_differences, float)
    weight_N = 1 / np.bincount(prompt_N, minlength=drawn_DP.shape[1])[prompt_N]
    block = max(1, 1_000_000 // len(p_N))
    parts = [drawn_DP[start : start + block] for start in range(0, len(drawn_DP), block)]
    no_styles = np.zeros((len(p_N), 0))
    return np.concatenate([_at_equal_length(p_N, length_N, no_styles, part[:, prompt_N] * weight_N) for part in parts])


def _at_equal_length(p_N: "FloatArray", length_N: "FloatArray", style_NF: "FloatArray", weight_DN: "FloatArray") -> "FloatArray":
    """Newton's method for every resample at once: P(win) where all differences are 0, (D,)."""
    import numpy as np
    from scipy.special import expit  # imported late: scipy is slow to import

    share_DN = weight_DN / weight_DN.sum(-1, keepdims=True)
    mean_D1 = (share_DN * length_N).sum(-1, keepdims=True)
    deviation_D1 = np.sqrt((share_DN * (length_N - mean_D1) ** 2).sum(-1, keepdims=True))
    scaled_DN = np.tanh(length_N / np.where(deviation_D1 > 0, deviation_D1, np.inf))
    features_DNK = np.empty((*weight_DN.shape, 2 + style_NF.shape[1]))
    features_DNK[..., 0], features_DNK[..., 1], features_DNK[..., 2:] = 1.0, scaled_DN, style_NF
    ridge_K = np.full(features_DNK.shape[-1], RIDGE)
    ridge_K[0] = 0.0
    theta_DK = np.zeros((len(weight_DN), len(ridge_K)))
    for _ in range(_NEWTON_STEPS):
        wins_DN = expit(np.einsum("dnk,dk->dn", features_DNK, theta_DK))
        gradient_DK = np.einsum("dn,dnk->dk", weight_DN * (p_N - wins_DN), features_DNK) - ridge_K * theta_DK
        curvature_DKK = np.einsum("dn,dnk,dnj->dkj", weight_DN * wins_DN * (1 - wins_DN), features_DNK, features_DNK, optimize=True)
        # The intercept has no ridge: where all is won it grows without end, by steps that are bounded here.
        curvature_DKK += np.diag(ridge_K + 1e-9)
        step_DK = np.linalg.solve(curvature_DKK, gradient_DK[..., None])[..., 0].clip(-2, 2)
        theta_DK += step_DK
        if np.abs(step_DK).max() < 1e-9:
            break
    rates: FloatArray = expit(theta_DK[:, 0])
    return rates


def _warning(controlled: float, plain: float, length_N: "FloatArray") -> str | None:
    deviation = float(length_N.std())
    if deviation > 0 and abs(float(length_N.mean())) > FAR_FROM_EQUAL * deviation:
        word = "longer" if length_N.mean() > 0 else "shorter"
        return f"most answers are much {word} than the start's: the win rate at equal length is an extrapolation"
    if abs(controlled - plain) > LARGE_DIFFERENCE:
        return f"the win rate is {plain:.2f}, and {controlled:.2f} between answers of equal length"
    return None
