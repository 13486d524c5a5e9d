"""The tables of a run as pandas data frames, one row per record. docs/python.md lists their columns."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligndistill.errors import DataError
from aligndistill.records import Candidate, Prompt, Ranking, plain_prompt
from aligndistill.stages.demonstrations import read_labels
from aligndistill.stages.files import CANDIDATES, METRICS, PROMPTS, RANKINGS, SCORED, read_verdicts
from aligndistill.stages.scored_answers import ScoredAnswer
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.run_folder import of_rounds

if TYPE_CHECKING:
    from pandas import DataFrame

Rows = Iterator[dict[str, Any]]


def read_table(name: str, run_folder: Path, stages: Mapping[str, Path]) -> "DataFrame":
    """A table of a run with these finished stages; of every round, if it has several.

    Raises:
        DataError: there is no such table, or its stage is not finished.
    """
    import pandas  # only here: importing it takes a second

    if name == "metrics":
        return pandas.DataFrame(_logged(run_folder / METRICS))
    if name not in TABLES:
        raise DataError(f"there is no table '{name}'. The tables of a run are: {', '.join((*TABLES, 'metrics'))}.")
    table = TABLES[name]
    folders = of_rounds(stages, table.stage)
    if not folders:
        raise DataError(
            f"{run_folder} has no table '{name}': its stage '{table.stage}' is not finished, or not part of this config. "
            f"Finished stages: {', '.join(stages) or 'none'}."
        )
    rows = ({**row, "round": number} for number, folder in folders.items() for row in table.rows(folder))
    return pandas.DataFrame(rows, columns=list(table.columns))


def _prompts(folder: Path) -> Rows:
    for prompt in read_jsonl(folder / PROMPTS, Prompt):
        yield {"prompt_id": prompt.id, "prompt": plain_prompt(prompt.messages), **prompt.model_dump()}


def _candidates(folder: Path) -> Rows:
    for candidate in read_jsonl(folder / CANDIDATES, Candidate):
        yield {"candidate_id": candidate.id, "revises": candidate.revises, **candidate.model_dump()}


def _demonstrations(folder: Path) -> Rows:
    for row in read_labels(folder):
        yield {**row.model_dump(), "prompt": plain_prompt(row.messages), "rationale": row.rationale, "task": row.task}


def _verdicts(folder: Path) -> Rows:
    for verdict in read_verdicts(folder):
        yield {**verdict.model_dump(exclude={"usage", "members"}), **verdict.usage.model_dump()}


def _rankings(folder: Path) -> Rows:
    for ranking in read_jsonl(folder / RANKINGS, Ranking):
        shared = {"prompt_id": ranking.prompt_id, "split": ranking.split, "prompt": plain_prompt(ranking.messages)}
        for rank, response in enumerate(ranking.responses, 1):
            yield {**shared, "rank": rank, **response.model_dump()}


def _answers(folder: Path) -> Rows:
    for answer in read_jsonl(folder / SCORED, ScoredAnswer):
        yield {"prompt": plain_prompt(answer.messages), **answer.model_dump()}


def _logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


@dataclass(frozen=True)
class _Table:
    stage: str
    rows: Callable[[Path], Rows]
    columns: tuple[str, ...]


TABLES = {
    "prompts": _Table("prompts", _prompts, ("prompt_id", "split", "source", "prompt", "messages")),
    "demonstrations": _Table(
        "demonstrations", _demonstrations, ("prompt_id", "prompt", "response", "rationale", "task", "author", "messages")
    ),
    "candidates": _Table("candidates", _candidates, ("prompt_id", "candidate_id", "author", "text", "finish", "revises", "round")),
    "verdicts": _Table(
        "verdicts",
        _verdicts,
        (
            *("prompt_id", "kind", "judge", "first", "second", "outcome", "probability_first", "candidate", "value", "reply"),
            *("calls", "prompt_tokens", "completion_tokens", "round"),
        ),
    ),
    "rankings": _Table(
        "rankings",
        _rankings,
        ("prompt_id", "split", "prompt", "rank", "score", "text", "author", "candidate_id", "finish", "round"),
    ),
    "answers": _Table("evaluation", _answers, ("prompt_id", "prompt", "author", "text", "length_tokens", "truth", "reward", "win")),
}
"""All tables except `metrics`, whose columns depend on the objectives."""
