"""Held-out answers of a student for a notebook: those that gained, lost, or differ in length."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from aligndistill.errors import ConfigError
from aligndistill.reporting.samples import MEASURES, START, SamplePrompt, gain
from aligndistill.stages.files import SCORED
from aligndistill.stages.report_page import sample_prompts
from aligndistill.stages.scored_answers import ScoredAnswer
from aligndistill.store.jsonl import read_jsonl

if TYPE_CHECKING:
    from pandas import DataFrame

Which = Literal["worse", "better", "longer", "shorter", "same", "all"]
SHOWN = 10


@dataclass(frozen=True)
class Samples:
    """Prompts with the answers of the start and a student, the clearest cases first.

    Attributes:
        which: what was asked for, see `Run.samples`.
        rows: all that were found; a notebook shows the first ten.
    """

    which: Which
    student: str
    rows: tuple[SamplePrompt, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def to_pandas(self) -> "DataFrame":
        """A row for each prompt, the start's columns with the suffix `_start`."""
        import pandas

        columns = [name for name, _ in _row(SamplePrompt("", ()), self.student)]
        return pandas.DataFrame([dict(_row(one, self.student)) for one in self.rows], columns=columns)

    def _repr_html_(self) -> str:
        from aligndistill.reporting.notebook import samples_html

        shown = f", the first {SHOWN}" if len(self) > SHOWN else ""
        return samples_html(f"{self.student}, {self.which}: {len(self):,} prompts{shown}", self.rows[:SHOWN], self.student)


def _row(sample: SamplePrompt, student: str) -> Iterator[tuple[str, Any]]:
    yield from (("prompt_id", sample.id), ("prompt", sample.prompt))
    for author, suffix in ((START, "_start"), (student, "")):
        answer = sample.of(author)
        for name in ("text", "truth", "reward", "tokens", *(("win",) if not suffix else ())):
            yield f"{name}{suffix}", getattr(answer, name, None)


def samples(evaluation: Path, student: str, which: Which) -> Samples:
    """A student's samples of one sort, from the folder of the evaluation.

    Raises:
        ConfigError: there is no such student, or no such sort.
    """
    if which not in get_args(Which):
        raise ConfigError(f"samples: '{which}' is unknown. Ask for one of {', '.join(get_args(Which))}.")
    every = [one for one in sample_prompts(read_jsonl(evaluation / SCORED, ScoredAnswer)) if one.of(student) is not None]
    if not every:
        raise ConfigError(f"samples: no held-out answers of a student '{student}'. See `run.students` for those that there are.")
    known = next((name for name in MEASURES if any(gain(one, student, name) is not None for one in every)), None)
    keys: Mapping[str, Callable[[SamplePrompt], float | None]] = {
        "worse": lambda one: None if known is None else gain(one, student, known),
        "better": lambda one: None if known is None or (gained := gain(one, student, known)) is None else -gained,
        "longer": lambda one: -_longer(one, student),
        "shorter": lambda one: _longer(one, student),
    }
    if which in keys:
        found = [(key, one) for one in every if (key := keys[which](one)) is not None and key < 0]
        return Samples(which, student, tuple(one for _, one in sorted(found, key=lambda pair: pair[0])))
    return Samples(which, student, tuple(one for one in every if which == "all" or _is_same(one, student)))


def _longer(sample: SamplePrompt, student: str) -> int:
    """How many tokens the student's answer is longer than the start's; 0 without one of them."""
    ours, theirs = sample.of(student), sample.of(START)
    return (ours.tokens or 0) - (theirs.tokens or 0) if ours is not None and theirs is not None else 0


def _is_same(sample: SamplePrompt, student: str) -> bool:
    ours, theirs = sample.of(student), sample.of(START)
    return ours is not None and theirs is not None and ours.text == theirs.text
