"""The questions of the stage `verdicts` as a batch file, and a batch's answers into the cache where the stage finds them.

Nothing is kept between the two but the questions themselves: what the cache lacks is what is asked, now and the next time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aligndistill.chat.batch import Answers, BatchChat, read_answers
from aligndistill.chat.http.wire import Completion
from aligndistill.commands.audit import _write
from aligndistill.config.audit import AuditProbes
from aligndistill.config.judges import Judge
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import RunConfig
from aligndistill.data.files import read_file
from aligndistill.errors import ConfigError, DataError
from aligndistill.pipeline import pipeline
from aligndistill.runs.make import work_of
from aligndistill.runs.run import run
from aligndistill.stages.context import Work
from aligndistill.stages.opening import JUDGE_MODEL, Servers, open_judge
from aligndistill.stages.verdicts import labelling_order


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


def open_questions(work: Work, judge: Judge, servers: Servers, probes: AuditProbes, logprobs: bool) -> list[dict[str, Any]]:
    """The requests for all verdicts that the cache lacks, in the OpenAI batch form.

    Raises:
        ConfigError: the judge is not behind a server.
    """
    return list(_ask(work, judge, servers, probes, {}, logprobs).missing.values())


def import_answers(work: Work, judge: Judge, servers: Servers, probes: AuditProbes, answers: Answers) -> Imported:
    """Put a batch's answers into the cache. A reply that cannot be read is no verdict, and not kept.

    Raises:
        ConfigError: the judge is not behind a server.
    """
    asked = _ask(work, judge, servers, probes, answers.completions, logprobs=False)
    left = _ask(work, judge, servers, probes, {}, logprobs=False)
    return Imported(len(asked.used), answers.failed, len(answers.completions.keys() - asked.used), len(left.missing))


def read_results(files: Iterable[Path]) -> Answers:
    """The answers in a batch's files. A line that cannot be read (the last one of a file that is not all there) is a failed row.

    Raises:
        DataError: a file that cannot be read at all, or without one readable line.
    """
    rows = []
    for file in files:
        of_file = list(read_file(file))
        if of_file and all(row.fault is not None for row in of_file):
            raise DataError(f"{of_file[0].where}: {of_file[0].fault}. Fetch the batch's results again.")
        rows += [row.values for row in of_file]
    return read_answers(rows)


@dataclass(frozen=True)
class _Asked:
    missing: Mapping[str, Any]
    used: frozenset[str]


def _ask(
    work: Work,
    judge: Judge,
    servers: Servers,
    probes: AuditProbes,
    completions: Mapping[str, Completion],
    logprobs: bool,
) -> _Asked:
    """Have the judge ask its questions of the file. It keeps what it can read; tasks that lack an answer come to nothing."""
    if not servers or any(name.startswith(JUDGE_MODEL) for name in work.inputs):
        raise ConfigError("a batch file is for a judge behind a server: give all of this judge's models 'kind: endpoint'.")
    order = labelling_order(work, judge, probes)
    missing: dict[str, Any] = {}
    used: set[str] = set()
    for seed, tasks in ((work.seed, order.tasks), (work.seed + 1, order.again)):
        chats = _Chats(seed, logprobs, completions)
        if tasks:
            for _ in open_judge(replace(work, seed=seed, open_endpoint=chats.open), judge, servers).judge(tasks):
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
    work, judge, servers, probes = _labelling(config)
    return _write(output, open_questions(work, judge, servers, probes, logprobs))


def import_batch(config: RunConfig, results: Sequence[Path]) -> Imported:
    """Take a batch's answers, from one or several files, as the judge's.

    Raises:
        ConfigError: the config has no judge behind a server.
        DataError: a file that cannot be read.
    """
    answers = read_results(results)
    work, judge, servers, probes = _labelling(config)
    return import_answers(work, judge, servers, probes, answers)


def _labelling(config: RunConfig) -> tuple[Work, Judge, Servers, AuditProbes]:
    """What the stage `verdicts` is given, with the candidates made."""
    by_name = {stage.name: stage for stage in pipeline(config).stages}
    if "verdicts" not in by_name:
        raise ConfigError("this config asks no judge to label: it has ready-made rankings.")
    run(config, until="candidates")
    stage = by_name["verdicts"]
    judge, servers, _, probes = stage.settings
    return work_of(stage, config.runtime), judge, servers, probes
