"""What the judge is asked in labelling: a task for each prompt, canaries and repeats. Tasks are read when they are asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aligndistill.config.audit import AuditProbes
from aligndistill.config.judges import Judge
from aligndistill.judges.canaries import CanaryTask, canary_tasks
from aligndistill.judges.protocol import Task
from aligndistill.records import Candidate, Prompt, content_hash
from aligndistill.stages.files import CANDIDATES, PROMPTS
from aligndistill.store.stored_records import Lines


class StoredTasks(Mapping[str, Task]):
    """A task for each prompt, by its id, in the order of the prompts. In memory are ids and places in the two files alone.

    Args:
        prompts, candidates: files of `Prompt` and `Candidate`.
        least: prompts with fewer candidates have no task.
    """

    def __init__(self, prompts: Path, candidates: Path, least: int) -> None:
        self._prompts = Lines(prompts, Prompt)
        self._candidates = Lines(candidates, Candidate)
        answers: dict[str, list[int]] = {}
        for place, candidate in self._candidates:
            answers.setdefault(candidate.prompt_id, []).append(place)
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        for place, prompt in self._prompts:
            places = answers.pop(prompt.id, [])
            if len(places) >= least:
                self._places[prompt.id] = place, tuple(places)

    def __getitem__(self, identity: str) -> Task:
        place, places = self._places[identity]
        prompt = self._prompts.at(place)
        return Task(prompt.id, prompt.messages, tuple(self._candidates.at(one) for one in places))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class _WithCanaries(Mapping[str, Task]):
    """Tasks, and each canary's after that of its prompt."""

    def __init__(self, labelled: Mapping[str, Task], canaries: Mapping[str, CanaryTask]) -> None:
        self._labelled = labelled
        self._canaries = canaries
        self._added = {canary.task.prompt_id: canary.task for canary in canaries.values()}

    def __getitem__(self, identity: str) -> Task:
        return self._added[identity] if identity in self._added else self._labelled[identity]

    def __iter__(self) -> Iterator[str]:
        for prompt in self._labelled:
            yield prompt
            if prompt in self._canaries:
                yield self._canaries[prompt].task.prompt_id

    def __len__(self) -> int:
        return len(self._labelled) + len(self._added)


@dataclass(frozen=True)
class LabellingTasks:
    """The tasks of the judge, by their ids: a canary's is its own.

    Attributes:
        labelled: every prompt with enough candidates.
        tasks: those and the canaries, each after its prompt's own task.
        again: the tasks whose questions are asked twice.
    """

    labelled: Mapping[str, Task]
    canaries: Sequence[CanaryTask]
    tasks: Mapping[str, Task]
    again: Mapping[str, Task]


def labelling_tasks(judge: Judge, probes: AuditProbes, prompts: Path, candidates: Path, least: int = 2) -> LabellingTasks:
    """The tasks on these candidates, including the probes; deterministic.

    Args:
        prompts, candidates: the folders of the stages.
        least: prompts with fewer candidates are not judged.
    """
    labelled = StoredTasks(prompts / PROMPTS, candidates / CANDIDATES, least)
    canaries = {canary.prompt_id: canary for canary in canary_tasks(labelled, probes.canaries)}
    repeats = 0 if judge.computes else probes.repeats
    again = sorted(labelled, key=lambda prompt: content_hash("repeat", prompt))[:repeats]
    asked_twice = {prompt: labelled[prompt] for prompt in again}
    return LabellingTasks(labelled, list(canaries.values()), _WithCanaries(labelled, canaries), asked_twice)
