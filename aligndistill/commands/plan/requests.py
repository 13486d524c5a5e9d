"""A dry run: the requests that the unfinished stages of a run would send to its models.

The stages' functions are called in a temporary store, with a chat model that counts requests and gives placeholder answers of the
maximum length. No requests are sent, no user function is called and nothing is trained. If a stage's inputs are placeholders, at
most 200 prompts are taken, spread over the data, and the counts are scaled. Cached verdicts are counted separately.
"""

import shutil
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

from aligndistill.chat.http.capabilities import ServerCapabilities
from aligndistill.chat.http.token_counts import token_count
from aligndistill.commands.plan.chats import CountedChats, Estimate, Ungraded
from aligndistill.commands.plan.counting_chat import placeholder
from aligndistill.commands.plan.elicited import placeholder_prompts, share_of_requests
from aligndistill.config.elicitation import Evolve
from aligndistill.config.filters import Filters
from aligndistill.config.judges import Judge
from aligndistill.config.models import EndpointModel
from aligndistill.config.objectives import OnPolicyDistil, Ppo, Rewarded
from aligndistill.config.run import RunConfig
from aligndistill.config.students import Student
from aligndistill.errors import JudgeError
from aligndistill.judges.protocol import Task
from aligndistill.records import Candidate, Prompt, Usage, Verdict
from aligndistill.runs.make import context_of, not_run
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import PROMPTS, held_out_prompts
from aligndistill.stages.opening import open_judge
from aligndistill.stages.shards import shards
from aligndistill.stages.verdicts import JudgedTask
from aligndistill.store.artifacts import SCRATCH, read_manifest
from aligndistill.store.jsonl import read_growing, read_jsonl, write_jsonl
from aligndistill.store.stage import Stage, with_folders

MAX_PLACEHOLDERS = 200
"""The most prompts that get placeholder answers; the counts are scaled to all prompts."""

ELICITING = "elicitation.make"
PROMPT_KINDS = frozenset({"prompts.read", "prompts.of_rankings", "filters.prompts", ELICITING})
DATA_KINDS = (PROMPT_KINDS - {ELICITING}) | {
    "rankings.read",
    "prompts.part",
    "prompts.sized_part",
    "prompts.with_new",
    "weak_prompts.part",
    "filters.demonstrations",
}
"""Stages that read the user's data; a dry run runs them unchanged."""

LABELS = "labels"
"""The names of the stages that ask about training prompts alone begin with this."""


def planned_requests(
    config: RunConfig, stages: Sequence[Stage], known: Mapping[str, ServerCapabilities]
) -> list[tuple[str, Estimate]]:
    """For each unfinished stage that sends requests: its name, and its requests to each model.

    Args:
        known: what servers are known to do, by `EndpointModel.identity`.
    """
    with tempfile.TemporaryDirectory() as store:
        dry = _DryRun(config, Path(store), known, not_run(stages, config.runtime.store))
        return [(stage.name, estimate) for stage in stages for estimate in dry.of_stage(stage)]


@dataclass
class _DryRun:
    config: RunConfig
    store: Path
    known: Mapping[str, ServerCapabilities]
    not_run: Container[Stage]
    folders: dict[Stage, Path] = field(default_factory=dict)
    """The folder of each stage's result, in the real or in the temporary store, if it has one."""

    prompts: list[Prompt] = field(default_factory=list)
    trained: dict[Path, list[Prompt]] = field(default_factory=dict)
    """The training prompts in a folder, read once for all students."""

    def of_stage(self, stage: Stage) -> Iterator[Estimate]:
        """The requests of a stage; its result is written where later stages find it."""
        real = stage.folder(self.config.runtime.store)
        finished = read_manifest(real) is not None
        self.folders[stage] = real if finished else stage.folder(self.store)
        if not finished and stage not in self.not_run:
            settings = stage.given.get("settings")
            if isinstance(settings, Student):
                yield from self._rewards(stage, settings)
                yield from self._watching(stage, settings)
                yield from self._readings(stage, settings)
            elif stage.kind in DATA_KINDS:
                yield from self._reading(stage)
            elif stage.kind == ELICITING:
                yield from self._eliciting(stage)
            elif models_given(stage):
                yield from self._asking(stage)
        if stage.kind in PROMPT_KINDS and stage not in self.not_run:
            self._keep_some(self.folders[stage])

    def _reading(self, stage: Stage) -> Iterator[Estimate]:
        """Read data. Its filters may ask a judge about every row that is left."""
        chats, given = self._chats(), self._arguments(stage)
        context = self._context(stage, chats)
        stage.make(context, **given)
        settings = stage.given.get("settings")
        filters = settings if isinstance(settings, Filters) else getattr(settings, "filters", None)
        if "models" in given and isinstance(filters, Filters) and filters.quality is not None:
            verdicts = list(_verdicts(context, ("quality",)))
            yield from chats.estimates(given["models"], filters.quality.judge, verdicts, len(verdicts), 1.0, certain=True)

    def _keep_some(self, folder: Path) -> None:
        """Store all prompts, and a selection of them for placeholder answers."""
        self.prompts = list(read_jsonl(folder / PROMPTS, Prompt))
        self.some = self.store / "some prompts"
        self.some.mkdir(exist_ok=True)
        write_jsonl(self.some / PROMPTS, spread(self.prompts, MAX_PLACEHOLDERS))

    def _asking(self, stage: Stage) -> Iterator[Estimate]:
        chats, given = self._chats(), self._arguments(stage)
        models = models_given(stage)
        judges = bool(given.get("judge") or "answers" in given)
        data = [needed for needed in stage.inputs if needed not in models.values()]
        certain = not judges or all(self.folders[needed].parent != self.store for needed in data)
        whole = judges and certain
        everyone = list(read_jsonl(given["prompts"] / PROMPTS, Prompt))
        if not whole:
            given["prompts"] = self.some
        used = list(read_jsonl(given["prompts"] / PROMPTS, Prompt))
        if stage.name.startswith(LABELS):
            everyone, used = trained_on(everyone), trained_on(used)
        elif "probes" not in given and "authors" not in given:  # stages that ask about held-out prompts alone
            limit = _most_held_out(given)
            everyone, used = held_out(everyone, limit), held_out(used, limit)
        given.pop("reference", None)  # computing the KL sends no requests
        context = self._context(stage, chats)
        with suppress(JudgeError):  # raised because placeholder verdicts cannot be read
            stage.make(context, **given)
        share = len(everyone) / len(used) if used else 0.0
        judge = given["judge"] if "judge" in given else getattr(_evaluation(given), "judge", None)
        verdicts = _verdicts(context) if judges else []
        sources = {name: with_folders(model, self.folders.__getitem__) for name, model in models.items()}
        yield from chats.estimates(sources, judge, verdicts, len(everyone), share, certain)

    def _eliciting(self, stage: Stage) -> Iterator[Estimate]:
        """The requests of a step in which models write prompts, at most. Later stages find as many prompts as it may write."""
        chats, given = self._chats(), self._arguments(stage)
        context, step = self._context(stage, chats), given["settings"]
        if isinstance(step, Evolve) and step.weak_seeds is None:  # asks about each prompt
            given["prompts"] = self.some
        cached = stage.make(context, **given).metrics["cached"]
        used, counted = read_jsonl(given["prompts"] / PROMPTS, Prompt), sum(one.asked.calls for one in chats.opened.values())
        share = share_of_requests(step, self.prompts, list(used), counted, cached)
        new = placeholder_prompts(stage.name, step, self.prompts)
        write_jsonl(context.folder / PROMPTS, [*self.prompts, *new])
        yield from chats.estimates(given["models"], None, [], len(new), share, certain=False)

    def _rewards(self, stage: Stage, settings: Student) -> Iterator[Estimate]:
        """The requests to the judges that a student learns from: placeholder answers to some prompts, scaled to the number of
        samples.
        """
        objective = settings.objective
        if not isinstance(objective, Rewarded):
            return
        judges = [one.source for one in objective.rewards if not isinstance(one.source, str)]
        if not judges:
            return
        train = self._trained_on(stage)
        tasks = _placeholder_tasks(train, objective.samples_per_prompt, settings.max_response_tokens)
        for judge in judges:
            yield from self._judging(stage, judge, tasks, settings.sampled_prompts(len(train)))

    def _watching(self, stage: Stage, settings: Student) -> Iterator[Estimate]:
        """The requests to the judge of PPO's win rates during training: a pair for each prompt."""
        objective = settings.objective
        if not isinstance(objective, Ppo) or objective.evaluate_every is None:
            return
        given = self._arguments(stage)
        sampling, judge = given["sampling"], given["evaluation"].judge
        prompts = held_out_prompts(given["prompts"], sampling.prompts)[: objective.evaluate_prompts]
        sampled = settings.sampled_prompts(len(self._trained_on(stage)))
        updates = sampled // (settings.batch_size * objective.minibatches)
        evaluations = ceil(updates / objective.evaluate_every)  # before the first update, and none after the last
        tasks = _placeholder_tasks(prompts, 2, sampling.max_new_tokens)
        yield from self._judging(stage, judge, tasks, evaluations * len(prompts))

    def _judging(self, stage: Stage, settings: Judge, tasks: Sequence[Task], prompts: int) -> Iterator[Estimate]:
        """The requests of a judge about some tasks, scaled to so many prompts."""
        chats, given = self._chats(), self._arguments(stage)
        judge = open_judge(self._context(stage, chats), settings, given["models"], given["seed"])
        verdicts = [verdict for judged in judge.judge(tasks) for verdict in judged.verdicts]
        share = prompts / len(tasks) if tasks else 0.0
        yield from chats.estimates(given["models"], settings, verdicts, prompts, share, certain=False)

    def _readings(self, stage: Stage, settings: Student) -> Iterator[Estimate]:
        """The requests to a teacher on a server that reads what a student writes: one for each answer, with its prompt."""
        objective, server = settings.objective, stage.given.get("teacher")
        if not isinstance(objective, OnPolicyDistil) or not isinstance(server, EndpointModel):
            return
        train = self._trained_on(stage)
        tokens, sampled = token_count(server), settings.sampled_prompts(len(train))
        calls, some = sampled * objective.samples_per_prompt, spread(train, MAX_PLACEHOLDERS)
        prompt_tokens = sum(tokens.count(prompt.messages) for prompt in some) / max(len(some), 1)
        asked = Usage(
            calls=calls, prompt_tokens=round(calls * (prompt_tokens + settings.max_response_tokens)), completion_tokens=calls
        )
        yield Estimate(server.name, server, sampled, 0, 0, asked, tokens.exact, certain=False)

    def _trained_on(self, stage: Stage) -> list[Prompt]:
        """The prompts that an on-policy student samples answers to: those of its round."""
        folder = self._arguments(stage)["prompts"]
        if folder not in self.trained:
            self.trained[folder] = trained_on(read_jsonl(folder / PROMPTS, Prompt))
        return self.trained[folder]

    def _chats(self) -> CountedChats:
        return CountedChats(self.known, self._fingerprint_of)

    def _fingerprint_of(self, folder: Path) -> str:
        """That of the stage whose result is in a folder."""
        return next(stage.fingerprint for stage, path in self.folders.items() if path == folder)

    def _arguments(self, stage: Stage) -> dict[str, Any]:
        return {name: with_folders(value, self.folders.__getitem__) for name, value in stage.given.items()}

    def _context(self, stage: Stage, chats: CountedChats) -> StageContext:
        """The stage's own context in the temporary store, with a copy of its unfinished work."""
        real = context_of(stage, self.config.runtime)
        folder = stage.folder(self.store)
        (folder / SCRATCH).mkdir(parents=True, exist_ok=True)
        for file in (real.folder / SCRATCH).glob("*.jsonl"):
            shutil.copy(file, folder / SCRATCH)
        identities = {self.folders[needed]: needed.fingerprint for needed in stage.inputs}
        caches = real.caches if real.caches.is_dir() else self.store / "caches"
        caches.mkdir(exist_ok=True)
        return replace(real, folder=folder, caches=caches, identities=identities, open_model=chats.open, open_grader=Ungraded)


def _evaluation(given: Mapping[str, Any]) -> Any:
    """The settings of the evaluation whose questions a stage asks."""
    return given.get("evaluation", given.get("settings"))


def _most_held_out(given: Mapping[str, Any]) -> int | None:
    """How many held-out prompts a stage asks about, at most."""
    if "sample" in given:
        most: int | None = given["sample"]
        return most
    settings = given["sampling"] if "sampling" in given else _evaluation(given)
    most = settings.prompts
    return most


def _verdicts(context: StageContext, labels: Iterable[str] = ("verdicts", "repeats", "comparisons")) -> Iterator[Verdict]:
    """The verdicts of a judging stage: those of an interrupted run, cached ones and placeholders."""
    for label in labels:
        files = shards(context.scratch / f"{label}.jsonl")
        tasks = {one.prompt_id: one for file in files for one in read_growing(file, JudgedTask)}
        yield from (verdict for one in tasks.values() for verdict in one.verdicts)


def models_given(stage: Stage) -> Mapping[str, Any]:
    """The models that a stage sends requests to, by name: its authors, and its judge's models."""
    author = {stage.given["name"]: stage.given["author"]} if "author" in stage.given else {}
    return {**stage.given.get("authors", {}), **stage.given.get("models", {}), **author}


def held_out(prompts: Iterable[Prompt], limit: int | None) -> list[Prompt]:
    """The prompts that the evaluation uses."""
    return [prompt for prompt in prompts if prompt.split == "held_out"][:limit]


def trained_on(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The training prompts."""
    return [prompt for prompt in prompts if prompt.split == "train"]


def spread(prompts: Sequence[Prompt], most: int) -> list[Prompt]:
    """At most `most` prompts, spread evenly, so that the finished part of an interrupted run is represented proportionally."""
    return list(prompts[:: ceil(len(prompts) / most)]) if prompts else []


def _placeholder_tasks(prompts: Sequence[Prompt], texts: int, tokens: int) -> list[Task]:
    """Of some of the prompts, so many answers of so many tokens each."""
    return [_placeholder_task(prompt, texts, tokens) for prompt in spread(prompts, MAX_PLACEHOLDERS)]


def _placeholder_task(prompt: Prompt, texts: int, tokens: int) -> Task:
    candidates = tuple(
        Candidate(id=f"{prompt.id}-{n}", prompt_id=prompt.id, text=placeholder(f"{prompt.id} {n}", tokens), author="start")
        for n in range(texts)
    )
    return Task(prompt.id, prompt.messages, candidates)
