"""A run's records as rows of other tools, by kind of data and format; every row with its split."""

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from aligndistill.config.problems import did_you_mean
from aligndistill.data.answer_exports import (
    answer_of,
    distilabel_answer_row,
    easydistill_row,
    lineage_columns,
    messages_row,
    prompt_row,
)
from aligndistill.data.exports import distilabel_row, rankings_row, rewardbench_rows, ultrafeedback_row
from aligndistill.data.preference_exports import openrlhf_rows, verdict_row
from aligndistill.data.trl_pairs import pairs_of
from aligndistill.errors import ConfigError, DataError
from aligndistill.records import Candidate, Demonstration, Prompt, Ranking, as_dicts, group_by_prompt
from aligndistill.reporting.provenance import read_provenance
from aligndistill.runs.provenance import PROVENANCE
from aligndistill.runs.votes import read_votes
from aligndistill.stages.files import CANDIDATES, DEMONSTRATIONS, PROMPTS, RANKINGS, SCORED, prompts_folder, read_verdicts
from aligndistill.stages.generated import Generated, demonstration_id, read_generated
from aligndistill.stages.scored_answers import ScoredAnswer, answer_key
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.run_folder import finished_stages, of_rounds

Data = Literal["preferences", "rankings", "verdicts", "votes", "answers", "prompts"]
KINDS: tuple[Data, ...] = get_args(Data)
FORMATS: dict[Data, tuple[str, ...]] = {
    "preferences": ("trl", "openrlhf", "rewardbench"),
    "rankings": ("rankings", "distilabel", "ultrafeedback"),
    "verdicts": ("verdicts",),
    "votes": ("votes", "trl"),
    "answers": ("messages", "easydistill", "distilabel-sft"),
    "prompts": ("prompts",),
}
"""The formats of each kind of data, the default first."""

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]
"""Each row with its split."""


def data_kinds(names: Sequence[str]) -> list[Data]:
    """Names as kinds of data, each once.

    Raises:
        ConfigError: there is no such kind.
    """
    for name in names:
        if name not in KINDS:
            raise ConfigError(f"--data {name}: expected one of {', '.join(KINDS)}{did_you_mean(name, KINDS)}.")
    return [kind for kind in KINDS if kind in names]


def format_of(data: Data, form: str | None) -> str:
    """The format, or the default one.

    Raises:
        ConfigError: this kind of data has no such format.
    """
    if form is None or form in FORMATS[data]:
        return form or FORMATS[data][0]
    others = [kind for kind, forms in FORMATS.items() if form in forms]
    advice = f"; --data {' or '.join(others)} has it" if others else ""
    raise ConfigError(f"--format {form}: --data {data} has {', '.join(FORMATS[data])}{advice}.")


def rows_of(run: Path, data: Data, form: str) -> Rows:
    """The rows of one kind of data.

    With rounds, those that each round made, in order; the sets that students learn from, of several rounds, are not repeated.

    Raises:
        DataError: the run does not have it yet.
    """
    folders = finished_stages(run)
    match data:
        case "prompts":
            lineage = _lineage(run, folders)
            return ((one.split, prompt_row(one.messages) | lineage(one.id)) for one in _prompts(run, folders))
        case "answers":
            return _answers(run, folders, form)
        case "verdicts":
            return _verdicts(run, folders)
        case "votes":
            return _votes(run, folders, form)
        case _:
            return _ranked(run, folders, form)


def _prompts(run: Path, folders: dict[str, Path]) -> Iterator[Prompt]:
    found = prompts_folder(folders)
    if found is None:
        raise DataError(f"{run}: this run has no prompts yet. Run it at least `--until prompts`.")
    return read_jsonl(found / PROMPTS, Prompt)


def _lineage(run: Path, folders: dict[str, Path]) -> Callable[[str], Row]:
    """See `lineage_columns`. A run of ready-made data has no prompts."""
    return lineage_columns(_prompts(run, folders) if prompts_folder(folders) is not None else ())


def _ranked(run: Path, folders: dict[str, Path], form: str) -> Rows:
    rounds, judged = of_rounds(folders, "rankings"), of_rounds(folders, "verdicts")
    if not rounds:
        raise DataError(f"{run}: this run has no rankings yet. Run it at least `--until rankings`.")
    lineage = _lineage(run, folders)
    return chain.from_iterable(_ranked_in(folder, judged.get(number), form, lineage) for number, folder in rounds.items())


def _ranked_in(rankings: Path, judged: Path | None, form: str, lineage: Callable[[str], Row]) -> Rows:
    """The rows of the rankings of one round, and of the verdicts that they were made from."""
    shown = judged if form in ("distilabel", "ultrafeedback") else None
    verdicts = group_by_prompt(read_verdicts(shown) if shown is not None else ())
    rows: dict[str, Callable[[Ranking], Iterator[Row]]] = {
        "rankings": lambda one: iter([rankings_row(one)]),
        "distilabel": lambda one: iter([distilabel_row(one, verdicts[one.prompt_id])]),
        "ultrafeedback": lambda one: iter([ultrafeedback_row(one, verdicts[one.prompt_id])]),
        "trl": lambda one: pairs_of(one, conversational=True),
        "openrlhf": openrlhf_rows,
        "rewardbench": rewardbench_rows,
    }
    found = read_jsonl(rankings / RANKINGS, Ranking)
    return ((one.split, row | lineage(one.prompt_id)) for one in found for row in rows[form](one))


def _answers(run: Path, folders: dict[str, Path], form: str) -> Rows:
    """The run's demonstrations if it has made some, else the best answer of each ranking."""
    records: Iterator[Demonstration | Ranking]
    generated: Mapping[str, Generated]
    made = [folder for folder in folders.values() if (folder / DEMONSTRATIONS).is_file()]
    if made:
        records = read_jsonl(made[-1] / DEMONSTRATIONS, Demonstration)
        generated = read_generated(made[-1])
    elif rounds := of_rounds(folders, "rankings"):
        records = chain.from_iterable(read_jsonl(folder / RANKINGS, Ranking) for folder in rounds.values())
        generated = ChainMap(*(read_generated(folder) for folder in of_rounds(folders, "candidates").values()))
    else:
        raise DataError(f"{run}: this run has neither demonstrations nor rankings yet. Run it at least `--until rankings`.")
    known = read_provenance(run / PROVENANCE)
    models = {one.name: (one.model, one.server or "local") for one in (known.origins.models if known else ())}
    row = {"messages": messages_row, "easydistill": easydistill_row, "distilabel-sft": distilabel_answer_row}[form]
    answered = (one for one in records if getattr(one, "task", "answer") == "answer")
    source, lineage = f"aligndistill {run.name}", _lineage(run, folders)
    return ((one.split, row(answer_of(one, models, source, _tokens(one, generated))) | lineage(one.prompt_id)) for one in answered)


def _tokens(record: Demonstration | Ranking, generated: Mapping[str, Generated]) -> tuple[int, int] | None:
    """What the request for an answer took, of its prompt and of its reply; None if that is not known."""
    line = generated.get(demonstration_id(record) if isinstance(record, Demonstration) else record.responses[0].candidate_id)
    if line is None or line.prompt_tokens is None or line.completion_tokens is None:
        return None
    return line.prompt_tokens, line.completion_tokens


def _verdicts(run: Path, folders: dict[str, Path]) -> Rows:
    rounds, written = of_rounds(folders, "verdicts"), of_rounds(folders, "candidates")
    if not rounds:
        raise DataError(f"{run}: this run has no verdicts of its own. Run it at least `--until verdicts`.")
    prompts = {one.id: one for one in _prompts(run, folders)}
    for number, folder in rounds.items():
        candidates = {one.id: one for one in read_jsonl(written[number] / CANDIDATES, Candidate)}
        for verdict in read_verdicts(folder):
            prompt = prompts.get(verdict.prompt_id)
            if prompt is not None:
                yield prompt.split, verdict_row(verdict, prompt.messages, prompt.split, candidates)


def _votes(run: Path, folders: dict[str, Path], form: str) -> Rows:
    """Votes with their texts. Voters are numbered, and their notes are left out: both may name people."""
    by_voter = read_votes(run)
    if not any(by_voter.values()) or "evaluation" not in folders:
        raise DataError(f"{run} has no votes yet. Give some with `aligndistill view {run}`.")
    answers: dict[str, ScoredAnswer] = {}
    for row in read_jsonl(folders["evaluation"] / SCORED, ScoredAnswer):
        answers.setdefault(answer_key(row.prompt_id, row.text), row)
    for number, votes in enumerate(by_voter.values(), 1):
        for vote in votes:
            left, right = answers.get(vote.left), answers.get(vote.right)
            if left is None or right is None:
                continue  # of an answer that another evaluation had
            turns = as_dicts(left.messages)
            if form == "votes":
                shown = {"prompt": turns, "left": left.text, "right": right.text, "vote": vote.vote, "queue": vote.queue}
                yield "held_out", {**shown, "named": vote.named, "voter": f"voter-{number}"}
            elif vote.vote in ("left", "right") and vote.queue != "repeat":
                better, worse = (left, right) if vote.vote == "left" else (right, left)
                chosen, rejected = ([{"role": "assistant", "content": one.text}] for one in (better, worse))
                yield "held_out", {"prompt": turns, "chosen": chosen, "rejected": rejected}
