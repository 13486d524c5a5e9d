"""Converts rows of UltraFeedback, distilabel and RewardBench to answers with scores."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from aligndistill.data.conversations import response_of
from aligndistill.data.files import BadRow

ULTRAFEEDBACK_SCORES = ("fine-grained_score", "overall_score")


@dataclass(frozen=True)
class Rated:
    """One answer of such a row: higher scores are better, on the row's own scale."""

    text: str
    score: float
    author: str


def ultrafeedback(values: Mapping[str, Any]) -> list[Rated]:
    """The `completions` of a row of openbmb/UltraFeedback that have a score.

    The score is the mean of the four ratings (also called `fine-grained_score` in the data set), or `overall_score` if there are
    no ratings. Completions without a score are skipped.

    Raises:
        BadRow: `completions` is not a list of objects with a `response`.
    """
    rated = []
    for completion in list_of(values["completions"], "completions"):
        if not isinstance(completion, Mapping):
            raise BadRow("completions is not a list of objects", f"it holds {type(completion).__name__}")
        score = _ultrafeedback_score(completion)
        if score is not None:
            author = completion.get("model")
            rated.append(Rated(response_of(completion.get("response"), "response"), score, str(author or "unknown")))
    return rated


def _ultrafeedback_score(completion: Mapping[str, Any]) -> float | None:
    annotations = completion.get("annotations") or {}
    ratings = [number_of(one.get("Rating")) for one in annotations.values() if isinstance(one, Mapping)]
    known = [rating for rating in ratings if rating is not None]
    if known:
        return fmean(known)
    scores = (number_of(completion.get(name)) for name in ULTRAFEEDBACK_SCORES)
    return next((score for score in scores if score is not None), None)


def distilabel(values: Mapping[str, Any]) -> list[Rated]:
    """The `generations` of a distilabel row with their `ratings`; those whose rating is null (not parsed) are skipped.

    Raises:
        BadRow: the lists differ in length.
    """
    generations, ratings = list_of(values["generations"], "generations"), list_of(values["ratings"], "ratings")
    authors = values.get("generation_models") or values.get("model_names") or ["unknown"] * len(generations)
    for name, given in (("ratings", ratings), ("generation_models", authors)):
        if len(list_of(given, name)) != len(generations):
            raise BadRow(f"generations and {name} differ in length", f"{len(generations)} and {len(given)}")
    scores = [number_of(rating) for rating in ratings]
    return [
        Rated(response_of(text, "generation"), score, str(author or "unknown"))
        for text, score, author in zip(generations, scores, authors, strict=True)
        if score is not None and text is not None
    ]


def rewardbench(values: Mapping[str, Any]) -> list[Rated]:
    """The answers of a RewardBench 2 row, whose `chosen` and `rejected` are lists of texts: score 1 if chosen, 0 if rejected."""
    return [*_of_list(values, "chosen", 1.0), *_of_list(values, "rejected", 0.0)]


def _of_list(values: Mapping[str, Any], column: str, score: float) -> Iterator[Rated]:
    models = values.get(f"{column}_model")
    texts = list_of(values[column], column)
    authors = models if isinstance(models, list) and len(models) == len(texts) else [models or column] * len(texts)
    yield from (Rated(response_of(text, column), score, str(author)) for text, author in zip(texts, authors, strict=True))


def list_of(value: Any, column: str) -> list[Any]:
    """A value that must be a list.

    Raises:
        BadRow: it is not a list.
    """
    if not isinstance(value, list):
        raise BadRow(f"{column} is not a list", f"found {type(value).__name__}")
    return value


def number_of(value: Any) -> float | None:
    """A finite number, or a text that contains one; None for anything else ("N/A", null)."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
