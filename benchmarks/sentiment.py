"""A reward that is known: how positive an answer sounds, by the word list of VADER (Hutto and Gilbert 2014)."""

from functools import cache
from typing import Any


@cache
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def positive(prompt: str, responses: list[str]) -> list[float]:
    """The compound sentiment of each response, from -1 (negative) to 1 (positive); the prompt is not read."""
    return [_analyzer().polarity_scores(response)["compound"] for response in responses]
