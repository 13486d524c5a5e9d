"""The schema of data sources and of the prompts of a run."""

from typing import Annotated, Literal

from pydantic import Field

from aligndistill.config.elicitation import Step
from aligndistill.config.section import NotHashed, ReadsFile, Section

MayTrain = Literal["yes", "no", "unknown"]
"""Whether a model's licence or terms allow to train other models on what it writes."""

# ---------------------------------------------------------------------------------------------------------------- data


class Source(Section):
    """A source of rows: a file, a folder of files, or a data set on the Hub at a pinned revision.

    Attributes:
        path: a JSON, JSONL, CSV or Parquet file (`.gz` too), a folder of such files or from `save_to_disk`, or the Hub name of a
            data set.
        revision: the commit of the Hub data set; required for Hub data sets, so that runs are reproducible.
        name: the Hub data set's configuration.
        split: the Hub data set's split.
        format: `auto` detects it from the columns. `hh`: transcripts in `chosen`/`rejected`. `preference`: TRL's, with an explicit
            or implicit prompt. `prompts`: prompt-only, `messages`, or `prompt` and `completion`. `rankings`: `prompt`,
            `responses`, `scores`. `distilabel`, `rewardbench` (version 2), `ultrafeedback`: the data sets' own columns.
        columns: maps this package's column name to the file's, as in `{prompt: question}`.
        limit: read at most this many rows.
        licence: of the data, for `provenance.json`; by default what the README.md beside it says.
        on_bad_row: `error` stops at a row that cannot be read; `drop` drops and counts it.
    """

    path: Annotated[str, ReadsFile]
    revision: str | None = None
    name: str | None = None
    split: str = "train"
    format: Literal["auto", "distilabel", "hh", "preference", "prompts", "rankings", "rewardbench", "ultrafeedback"] = "auto"
    columns: dict[str, str] = Field(default={})
    limit: int | None = Field(default=None, gt=0)
    on_bad_row: Literal["error", "drop"] = "error"
    licence: Annotated[str | None, NotHashed] = None


# ---------------------------------------------------------------------------------------------------------------- data


class Prompts(Section):
    """The prompts of the run. `held_out` is the share, chosen by a hash of the prompt, that is used for evaluation only.

    Attributes:
        elicit: steps, in order, in which models write more training prompts; each is a stage, in every later round if it has
            `weak_seeds`.
    """

    source: Source
    held_out: float = Field(default=0.1, gt=0, lt=1)
    elicit: Annotated[tuple[Step, ...], NotHashed] = ()

    @property
    def first_steps(self) -> tuple[Step, ...]:
        """The steps of `elicit` that are run once, before the first round."""
        return tuple(step for step in self.elicit if step.weak_seeds is None)

    @property
    def round_steps(self) -> tuple[Step, ...]:
        """The steps of `elicit` that are run before every round but the first."""
        return tuple(step for step in self.elicit if step.weak_seeds is not None)
