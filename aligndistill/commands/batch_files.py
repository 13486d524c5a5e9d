"""`aligndistill judge export-batch` and `import-batch`: the judge's open questions as a batch file, and its answers into the cache.

Nothing is kept between the two but the questions themselves: what the cache lacks is what is asked, now and the next time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aligndistill.chat.batch import Answers, BatchChat, read_answers
from aligndistill.chat.http.wire import Completion
from aligndistill.commands.export import write_rows
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import RunConfig
from aligndistill.data.files import read_file
from aligndistill.errors import ConfigError, DataError
from aligndistill.pipeline import pipeline
from aligndistill.runs.make import arguments_of, context_of
from aligndistill.runs.run import run
from aligndistill.stages.context import StageContext
from aligndistill.stages.opening import open_judge
from aligndistill.stages.verdicts import labelling_tasks


@dataclass(frozen=True)
class Imported:
    """What became of a batch's answers.

    Attributes:
        read: answers to open questions; failed: rows without an answer; unknown: answers to others, or that were here already.
        missing: questions that still have no verdict, unreadable replies among them: they are asked again.
    """

    read: int
    failed: int
    unknown: int
    missing: int

    @property
    def summary(self) -> str:
        """All of it in a sentence."""
        return (
            f"{self.read} answers taken, {self.failed} failed, {self.unknown} to questions that are not open; "
            f"{self.missing} questions are open still."
        )


@dataclass(frozen=True)
class Labelling:
    """What the stage `verdicts` is given.

    Attributes:
        arguments: its keyword arguments (see `stages/verdicts.py`).
    """

    context: StageContext
    arguments: Mapping[str, Any]


def open_questions(labelling: Labelling, logprobs: bool) -> list[dict[str, Any]]:
    """The requests for all verdicts that the cache lacks, in the OpenAI batch form.

    Raises:
        ConfigError: the judge is not behind a server.
    """
    return list(_ask(labelling, {}, logprobs).missing.values())


def import_answers(labelling: Labelling, answers: Answers) -> Imported:
    """Put a batch's answers into the cache. A reply that cannot be read is no verdict, and not kept.

    Raises:
        ConfigError: the judge is not behind a server.
    """
    asked = _ask(labelling, answers.completions, logprobs=False)
    left = _ask(labelling, {}, logprobs=False)
    return Imported(len(asked.used), answers.failed, len(answers.completions.keys() - asked.used), len(left.missing))


def read_results(files: Iterable[Path]) -> Answers:
    """The answers in a batch's files. A line that cannot be read (the last one of a file that is not all there) is a failed row.

    Raises:
        DataError: a file that cannot be read at all, or without one readable line.
    """
    rows = []
    for file in files:
        of_file = list(read_file(file))
        if of_file and all(row.error is not None for row in of_file):
            raise DataError(f"{of_file[0].where}: {of_file[0].error}. Fetch the batch's results again.")
        rows += [row.values for row in of_file]
    return read_answers(rows)


@dataclass(frozen=True)
class _Asked:
    missing: Mapping[str, Any]
    used: frozenset[str]


def _ask(labelling: Labelling, completions: Mapping[str, Completion], logprobs: bool) -> _Asked:
    """Have the judge ask its questions of the file. It keeps what it can read; tasks that lack an answer come to nothing."""
    given = labelling.arguments
    judge, models, seed = given["judge"], given["models"], given["seed"]
    if not models or not all(isinstance(model, EndpointModel) for model in models.values()):
        raise ConfigError("a batch file is for a judge behind a server: give all of this judge's models 'kind: endpoint'.")
    wanted = labelling_tasks(judge, given["probes"], given["prompts"], given["candidates"])
    missing: dict[str, Any] = {}
    used: set[str] = set()
    for of_seed, tasks in ((seed, wanted.tasks), (seed + 1, wanted.again)):
        chats = _Chats(of_seed, logprobs, completions)
        if tasks:
            context = replace(labelling.context, open_endpoint=chats.open)
            for _ in open_judge(context, judge, models, of_seed).judge(tasks):
                pass
        for chat in chats.opened:
            missing |= chat.missing
            used |= chat.used
    return _Asked(missing, frozenset(used))


@dataclass
class _Chats:
    """Stands for every server that a judge asks."""

    seed: int
    logprobs: bool
    completions: Mapping[str, Completion]
    opened: list[BatchChat] = field(default_factory=list)

    def open(self, endpoint: EndpointModel) -> BatchChat:
        self.opened.append(BatchChat(endpoint, self.seed, self.logprobs, self.completions))
        return self.opened[-1]


def export_batch(config: RunConfig, output: Path, logprobs: bool) -> int:
    """Make the candidates, and write the questions that have no verdict yet as a batch file; returns how many.

    Raises:
        ConfigError: the config has no judge behind a server.
    """
    return write_rows(output, open_questions(labelling_of(config), logprobs))


def import_batch(config: RunConfig, results: Sequence[Path]) -> Imported:
    """Take a batch's answers, from one or several files, as the judge's.

    Raises:
        ConfigError: the config has no judge behind a server.
        DataError: a file that cannot be read.
    """
    answers = read_results(results)
    return import_answers(labelling_of(config), answers)


def labelling_of(config: RunConfig) -> Labelling:
    """What the stage `verdicts` is given, with the candidates made.

    Raises:
        ConfigError: this config has no such stage.
    """
    by_name = {stage.name: stage for stage in pipeline(config).stages}
    if "verdicts" not in by_name:
        raise ConfigError("this config asks no judge to label: it has ready-made rankings.")
    run(config, until="candidates")
    stage = by_name["verdicts"]
    return Labelling(context_of(stage, config.runtime), arguments_of(stage, config.runtime))
