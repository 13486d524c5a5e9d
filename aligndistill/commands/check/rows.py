"""The rows of a config's data files: bad ones by number, and data of which nothing is left."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aligndistill.config.data import Source
from aligndistill.config.objectives import Grpo, Rloo
from aligndistill.config.paths import at_home
from aligndistill.config.rounds import FreshPrompts
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import KeyPath, sections_in
from aligndistill.data.loading import Loading, load_demonstrations, load_items, load_judgments, load_prompts, load_rankings
from aligndistill.data.sources import on_hub, saved_to_disk
from aligndistill.errors import DataError, UserError
from aligndistill.preferences.rankings import rank_ready_made

MAX_ROWS = 20_000
"""The most rows of a source that are read, so that a check takes a second or two."""


@dataclass(frozen=True)
class CheckedSource:
    """What was found in one source.

    Attributes:
        key: the key of its path.
        error: why a run cannot use it.
        warning: that rows would be dropped, or that only the first rows were read.
    """

    key: KeyPath
    error: UserError | None = None
    warning: str | None = None


def check_rows(config: RunConfig) -> Iterator[CheckedSource]:
    """Read every source that is on this machine, except folders that only the `datasets` library can read."""
    for path, section in sections_in(config):
        if isinstance(section, Source):
            try:
                yield _checked(config, path, section)
            except UserError as error:
                yield CheckedSource((*path, "path"), error)


def _checked(config: RunConfig, path: KeyPath, source: Source) -> CheckedSource:
    key = (*path, "path")
    if on_hub(source) or saved_to_disk(at_home(source.path)):
        return CheckedSource(key)
    limit = min(source.limit or MAX_ROWS, MAX_ROWS)
    loading = _loading(config, path, source.model_copy(update={"on_bad_row": "drop", "limit": limit}))
    error: UserError | None = None
    trained = 0
    try:
        for one in loading:
            if path == ("rankings", "source"):
                rank_ready_made(one, config.rankings)
            trained += one.split == "train" if path == ("prompts", "source") else 0
    except DataError as found:
        error = found
    more = loading.bad_rows - len(loading.first_bad_rows)
    bad = "; ".join(loading.first_bad_rows) + (f"; and {more} more" if more else "")
    if bad and source.on_bad_row == "error":
        error = DataError(f"{bad}. Fix the rows, or set `on_bad_row: drop` to drop and count such rows.")
    if error is not None:
        return CheckedSource(key, error)
    if path == ("prompts", "source") and (loading.rows < limit or limit == source.limit):
        place, few = next(_few(config, trained), (key, None))
        if few is not None:
            return CheckedSource(place, DataError(few))
    if bad:
        return CheckedSource(key, warning=f"rows that would be dropped: {bad}")
    if loading.rows == MAX_ROWS and source.limit != MAX_ROWS:
        return CheckedSource(key, warning=f"only the first {MAX_ROWS:,} rows were checked")
    return CheckedSource(key)


def _few(config: RunConfig, training_prompts: int) -> Iterator[tuple[KeyPath, str]]:
    """For what the training prompts are too few, and why."""
    asked = config.rounds.prompts if config.rounds is not None else None
    if config.rounds is not None and isinstance(asked, FreshPrompts):
        short = asked.shortage(config.rounds.count, training_prompts, weak=config.rounds.weak is not None)
        if short is not None:
            yield ("rounds", "prompts"), short
    if config.prompts is not None and config.prompts.elicit:
        return  # models write more
    for name, student in config.students.items():
        if isinstance(student.objective, Grpo | Rloo) and student.batch_size > training_prompts:
            text = f"there are {training_prompts} training prompts, fewer than the {student.batch_size} of one step"
            yield ("students", name, "batch_size"), f"{text} of {student.objective.kind}: lower batch_size, or add prompts"


def _loading(config: RunConfig, path: KeyPath, source: Source) -> Loading[Any]:
    if path[-1] in ("demonstrations", "tokenizer_data", "examples", "references"):
        return load_demonstrations(source, config.held_out)
    if path[-1] == "labels":
        return load_judgments(source)
    if "against" in path:
        return load_items(source)
    return load_prompts(source, config.held_out) if path[0] == "prompts" else load_rankings(source, config.held_out)
