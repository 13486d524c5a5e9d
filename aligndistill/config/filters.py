"""The schema of filters: which prompts, demonstrations and ready-made rankings are kept."""

import glob
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from aligndistill.config.data import Prompts, Source
from aligndistill.config.judges import Judge
from aligndistill.config.models import ModelRef
from aligndistill.config.schema import models_of
from aligndistill.config.section import NotHashed, Section

Language = Literal[
    "ar", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "hu", "id", "it",
    "ja", "ko", "nl", "pl", "pt", "ro", "ru", "sv", "th", "tr", "uk", "vi", "zh",
]  # fmt: skip
"""Languages that can be told apart, by their ISO 639-1 codes."""


class Quality(Section):
    """Rows are kept whose grade by a judge is high enough.

    Attributes:
        judge: one that grades (`rubric`, `function`, `reward_model`, `likelihood`). Of demonstrations it sees prompt and answer; of
            others the prompt, as the answer to a request to write one.
        at_least: the lowest grade that is kept, on the judge's scale.
    """

    judge: Judge
    at_least: float


class Within(Section):
    """Rows are kept of which a local model says a number in this range, both ends included. `[lo, hi]` is short for the start's.

    Attributes:
        model: of demonstrations, `start` is the start before it is fine-tuned on them.
    """

    between: Annotated[tuple[float, float], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
    model: ModelRef = "start"

    @model_validator(mode="after")
    def _goes_up(self) -> "Within":
        if self.between[0] > self.between[1]:
            raise ValueError("the lower end is above the upper end")
        return self


class Balance(Section):
    """No group of training rows has more than a share of them; of larger groups rows are dropped, chosen by hash.

    Attributes:
        by: `language` as it is detected, `operation` by which a prompt was written, or the `file` that it was read from.
        at_most: the largest share of a group.
    """

    by: Literal["language", "operation", "file"]
    at_most: float = Field(gt=0, le=1)


def _between(value: Any) -> Any:
    return {"between": tuple(value)} if isinstance(value, list | tuple) else value


def _files(value: Any) -> Any:
    """Each path is short for a source; one with `*` or `?` for the files that it fits."""
    if not isinstance(value, list | tuple):
        return value
    found: list[Any] = []
    for one in value:
        fitting = sorted(glob.glob(one)) if isinstance(one, str) and set(one) & set("*?") else []
        found += [{"path": path} if isinstance(path, str) else path for path in fitting or [one]]
    return tuple(found)


class Filters(Section):
    """Which rows are kept. A key that is not given filters nothing.

    Training rows that contain a held-out prompt of the run are always dropped.

    Attributes:
        length: the fewest and the most units of a prompt: words, or characters of scripts without spaces.
        duplicates: a row is dropped if its Jaccard similarity to a kept one, by runs of three units, is at least this.
        against: data of evaluations: training rows that contain one of their prompts are dropped.
        language: rows are kept that are in one of these languages, or whose language cannot be told.
        refusals: drop answers that decline, and prompts that are such an answer.
        self_references: drop texts in which a model speaks of itself ("as an AI by ...").
        cut_off: drop texts that end in the middle of a sentence or of a block of code.
        quality: a judge's grade.
        ifd: instruction-following difficulty of a demonstration: how little its prompt helps to predict its answer; from 1 on not
            at all.
        perplexity: of a demonstration's answer to its prompt; of other rows, of the prompt.
        balance: groups of training rows are cut to a share.
    """

    length: tuple[int, int] | None = None
    duplicates: float | None = Field(default=None, gt=0, le=1)
    against: Annotated[tuple[Source, ...], BeforeValidator(_files)] = ()
    language: tuple[Language, ...] = ()
    refusals: bool = False
    self_references: bool = False
    cut_off: bool = False
    quality: Quality | None = None
    ifd: Annotated[Within | None, BeforeValidator(_between)] = None
    perplexity: Annotated[Within | None, BeforeValidator(_between)] = None
    balance: Balance | None = None

    @field_validator("length")
    @classmethod
    def _goes_up(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 0 <= value[0] <= value[1]:
            raise ValueError("the fewest units come first, then the most, as in [4, 150]")
        return value

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that are asked."""
        return models_of(self.quality, self.ifd, self.perplexity)


class FilteredPrompts(Prompts):
    """The prompts of the run. `filters` decides which of them are kept, after all are read and written."""

    filters: Annotated[Filters | None, NotHashed] = None  # by the stage that reads them; another one filters them
