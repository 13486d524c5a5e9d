"""`aligndistill judge export-batch` and `import-batch`: write the judge's unanswered questions as a batch file, and import the
answers into the cache.

No state is kept between the two: a question is asked if and only if the cache has no answer to it.
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
from aligndistill.stages.labelling import labelling_tasks
from aligndistill.stages.opening import open_judge


@dataclass(frozen=True)
class Imported:
    """The result of importing a batch's answers.

    Attributes:
        read: answers to open questions; failed: rows without an answer; unknown: answers to other or already answered questions.
        missing: questions that still have no verdict, including those with unreadable replies: they are asked again.
    """

    read: int
    failed: int
    unknown: int
    missing: int

    @property
    def summary(self) -> str:
        """The counts as a sentence."""
        return (
            f"{self.read} answers imported, {self.failed} failed, {self.unknown} to questions that are not open; "
            f"{self.missing} questions are still open."
        )


@dataclass(frozen=True)
class Labelling:
    """The inputs of the stage `verdicts`.

    Attributes:
        arguments: its keyword arguments (see `stages/verdicts.py`).
    """

    context: StageContext
    arguments: Mapping[str, Any]


def open_questions(labelling: Labelling, logprobs: bool) -> list[dict[str, Any]]:
    """The requests for all verdicts that are not in the cache, in the OpenAI batch format.

    Raises:
        ConfigError: the judge is not behind a server.
    """
    return list(_ask(labelling, {}, logprobs).missing.values())


def import_answers(labelling: Labelling, answers: Answers) -> Imported:
    """Write a batch's answers to the cache. Unreadable replies are not verdicts, and are not cached.

    Raises:
        ConfigError: the judge is not behind a server.
    """
    asked = _ask(labelling, answers.completions, logprobs=False)
    left = _ask(labelling, {}, logprobs=False)
    return Imported(len(asked.used), answers.failed, len(answers.completions.keys() - asked.used), len(left.missing))


def read_results(files: Iterable[Path]) -> Answers:
    """The answers in a batch's files. An unreadable line (such as the last line of an incomplete file) counts as a failed row.

    Raises:
        DataError: a file cannot be read, or has no readable line.
    """
    rows = []
    for file in files:
        of_file = list(read_file(file))
        if of_file and all(row.error is not None for row in of_file):
            raise DataError(f"{of_file[0].where}: {of_file[0].error}. Download the batch's results again.")
        rows += [row.values for row in of_file]
    return read_answers(rows)


@dataclass(frozen=True)
class _Asked:
    missing: Mapping[str, Any]
    used: frozenset[str]


def _ask(labelling: Labelling, completions: Mapping[str, Completion], logprobs: bool) -> _Asked:
    """Let the judge read its answers from the file. It caches the readable ones; tasks without all answers are skipped."""
    given = labelling.arguments
    judge, models, seed = given["judge"], given["models"], given["seed"]
    if not models or not all(isinstance(model, EndpointModel) for model in models.values()):
        raise ConfigError("batch files need a judge behind a server: set 'kind: endpoint' for all models of this judge.")
    wanted = labelling_tasks(judge, given["probes"], given["prompts"], given["candidates"])
    missing: dict[str, Any] = {}
    used: set[str] = set()
    for of_seed, tasks in ((seed, wanted.tasks), (seed + 1, wanted.again)):
        chats = _Chats(of_seed, logprobs, completions)
        if tasks:
            context = replace(labelling.context, open_endpoint=chats.open)
            for _ in open_judge(context, judge, models, of_seed).judge(list(tasks.values())):
                pass
        for chat in chats.opened:
            missing |= chat.missing
            used |= chat.used
    return _Asked(missing, frozenset(used))


@dataclass
class _Chats:
    """Replaces every server that a judge asks."""

    seed: int
    logprobs: bool
    completions: Mapping[str, Completion]
    opened: list[BatchChat] = field(default_factory=list)

    def open(self, endpoint: EndpointModel) -> BatchChat:
        self.opened.append(BatchChat(endpoint, self.seed, self.logprobs, self.completions))
        return self.opened[-1]


def export_batch(config: RunConfig, output: Path, logprobs: bool) -> int:
    """Generate the candidates, and write the questions without a verdict as a batch file; returns their number.

    Raises:
        ConfigError: the config has no judge behind a server.
    """
    return write_rows(output, open_questions(labelling_of(config), logprobs))


def import_batch(config: RunConfig, results: Sequence[Path]) -> Imported:
    """Import a batch's answers, from one or several files, as the judge's answers.

    Raises:
        ConfigError: the config has no judge behind a server.
        DataError: a file cannot be read.
    """
    answers = read_results(results)
    return import_answers(labelling_of(config), answers)


def labelling_of(config: RunConfig) -> Labelling:
    """The inputs of the stage `verdicts`; generates the candidates first.

    Raises:
        ConfigError: this config has no such stage.
    """
    by_name = {stage.name: stage for stage in pipeline(config).stages}
    if "verdicts" not in by_name:
        raise ConfigError(
            "this config has ready-made rankings, so no judge labels anything. Remove rankings.source to ask a judge."
        )
    run(config, until="candidates")
    stage = by_name["verdicts"]
    return Labelling(context_of(stage, config.runtime), arguments_of(stage, config.runtime))
