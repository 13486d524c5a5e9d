"""What `aligndistill init` needs to know, from options, or asked on a terminal."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import typer

from aligndistill.config.data import Source
from aligndistill.data.files import SourceRow
from aligndistill.data.sources import read_rows
from aligndistill.errors import ConfigError

OBJECTIVES = ("dpo", "simpo", "orpo", "kto", "cpo", "rrhf", "pro", "ppo", "best_of_n")
"""Objectives that need nothing but the run's judge, or ready-made preferences; `ppo` needs a reward model as well."""

JUDGES = ("pairwise", "rubric", "likelihood", "none")


FEW_ROWS = 200


@dataclass(frozen=True)
class Choices:
    """What a first config is written from.

    Attributes:
        prompts: a file of prompts, or None.
        preferences: a file of ready-made preferences, or None.
        held_out: the share of them that is held out: a quarter of few, else a tenth.
        student: a Hub name or a folder.
        teacher: a server's URL, a Hub name, a folder, or None.
        teacher_name: the model's name on the server.
        gpus: 0 for training on the CPU.
    """

    prompts: str | None
    preferences: str | None
    held_out: float
    student: str
    teacher: str | None
    teacher_name: str | None
    judge: str
    objectives: tuple[str, ...]
    gpus: int

    @property
    def is_server(self) -> bool:
        """Whether the teacher is behind a URL."""
        return self.teacher is not None and "://" in self.teacher


@dataclass(frozen=True)
class Given:
    """The options, None where one was not given."""

    prompts: str | None = None
    preferences: str | None = None
    student: str | None = None
    teacher: str | None = None
    teacher_name: str | None = None
    judge: str | None = None
    objectives: str | None = None
    gpus: int | None = None


def complete(given: Given, found_gpus: int, asks: bool | None = None) -> Choices:
    """Ask for what was not given.

    Args:
        found_gpus: the default number of GPUs.
        asks: whether to ask; by default, on a terminal.

    Raises:
        ConfigError: an answer is missing and it cannot be asked for, or one is not among the possible ones.
    """
    ask = _asker(sys.stdin.isatty() if asks is None else asks)
    if given.prompts and given.preferences:
        raise ConfigError("--prompts and --preferences: give one of them. Prompts are answered and judged; preferences are ready.")
    prompts, preferences = given.prompts, given.preferences
    if prompts is None and preferences is None:
        prompts = ask("A JSONL file of prompts, or one of ready-made preferences", "--prompts FILE or --preferences FILE", None)
        if _has_preferences(prompts):
            prompts, preferences = None, prompts
    student = given.student or ask("The student: a Hub name or a folder", "--student MODEL", None)
    if preferences is not None:
        teacher, judge = given.teacher, given.judge or "none"
    else:
        teacher = given.teacher or ask("The teacher: a server's URL ending in /v1, a Hub name, or a folder", "--teacher URL", None)
        judge = given.judge or ask(f"The judge: {', '.join(JUDGES)}", "--judge KIND", "pairwise")
    name = given.teacher_name
    if teacher is not None and "://" in teacher and name is None:
        name = ask("The teacher's name on that server", f"--teacher-name NAME (most servers list theirs at {teacher}/models)", None)
    objectives = given.objectives or ask(f"Objectives, with commas, of {', '.join(OBJECTIVES)}", "--objectives dpo,...", "dpo")
    gpus = given.gpus if given.gpus is not None else _count(ask("GPUs on this machine", "--gpus N", str(found_gpus)))
    chosen = tuple(dict.fromkeys(_one_of(OBJECTIVES, part.strip(), "--objectives") for part in objectives.split(",")))
    judge = _one_of(JUDGES, judge, "--judge")
    if judge == "none" and preferences is None:
        raise ConfigError("--judge none: prompts alone teach nothing. Name a judge, or give --preferences.")
    if judge != "none" and teacher is None:
        raise ConfigError(f"--judge {judge}: the teacher is the judge. Give --teacher, or --judge none.")
    if judge == "likelihood" and "://" in str(teacher):
        raise ConfigError("--judge likelihood reads a local model's probabilities. Give a folder or a Hub name as --teacher.")
    held_out = 0.25 if _has_few_rows(str(prompts or preferences)) else 0.1
    return Choices(prompts, preferences, held_out, student, teacher, name, judge, chosen, gpus)


def _asker(asks: bool) -> Callable[[str, str, str | None], str]:
    """Ask on the terminal; without one, take the default, or refuse."""

    def ask(question: str, option: str, default: str | None) -> str:
        if asks:
            return str(typer.prompt(question, default=default))
        if default is None:
            raise ConfigError(f"init cannot ask here: give {option}.")
        return default

    return ask


def _count(text: str) -> int:
    if not (text.strip().isascii() and text.strip().isdecimal()):
        raise ConfigError(f"'{text}' GPUs: expected a whole number, 0 for training on the CPU.")
    return int(text)


def _one_of(allowed: tuple[str, ...], value: str, option: str) -> str:
    if value not in allowed:
        raise ConfigError(f"{option} {value}: expected one of {', '.join(allowed)}.")
    return value


def _has_few_rows(path: str) -> bool:
    return sum(1 for _ in islice(_rows(path), FEW_ROWS)) < FEW_ROWS


def _rows(path: str) -> Iterator[SourceRow]:
    return read_rows(Source(path=path))


def _has_preferences(path: str) -> bool:
    """Whether the first row of a file has a chosen and a rejected answer."""
    first = next(_rows(path), None)
    return first is not None and {"chosen", "rejected"} <= first.values.keys()
