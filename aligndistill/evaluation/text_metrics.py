"""Metrics of text, over words split at white space: diversity across answers, repetition within an answer."""

from collections.abc import Sequence


def distinct_n(texts: Sequence[str], n: int) -> float | None:
    """Distinct n-grams divided by all n-grams of all texts: low if the answers are similar.

    Li et al. 2016 (arXiv:1510.03055), section 5. Longer and more texts score lower, so compare answers to the same
    prompts. For one text it is 1 - `repetition`.

    Returns:
        A share in (0, 1], or None if no text has n words.
    """
    ngrams = [ngram for text in texts for ngram in _ngrams(text, n)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def repetition(text: str, n: int = 4) -> float:
    """The share of a text's n-grams that occurred earlier in it: 0 without repetition, near 1 for a loop.

    Welleck et al. 2020 (arXiv:1908.04319), seq-rep-n. 0 for a text with fewer than n words.
    """
    ngrams = _ngrams(text, n)
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    assert n > 0
    words = text.split()
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
