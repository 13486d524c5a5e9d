"""Judges as reward sources: verdicts on sampled answers become one expected score for each, and sources are added up."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from aligndistill.config.judges import Judge
from aligndistill.errors import JudgeError
from aligndistill.judges.protocol import Judge as OpenJudge
from aligndistill.judges.protocol import Task
from aligndistill.judges.reward_model import RewardModelJudge
from aligndistill.models.load import read_pointer
from aligndistill.models.reward import load_reward_model
from aligndistill.preferences.scores import bradley_terry, judge_advantage, mean_grade
from aligndistill.records import Candidate, Comparison, Grade, Verdict, candidate_id
from aligndistill.stages.context import Work
from aligndistill.stages.opening import Servers, open_judge
from aligndistill.training.on_policy.rollouts import SampledPrompt

T = TypeVar("T")

REWARD_MODEL = "reward_model"
"""The name of a stage's input that holds the run's reward model."""


@dataclass(frozen=True)
class RewardPart:
    """One source of a reward.

    Attributes:
        judge: None for the run's reward model.
        servers: the judge's servers (see `open_judge`).
        content: the hash of the judge's files.
        inputs: put before the names of those of the stage's inputs that are the judge's models.
    """

    judge: Judge | None
    servers: Servers
    content: str
    inputs: str
    weight: float


@dataclass(frozen=True)
class Rewards:
    """The weighted sum of what the sources say of an answer; no score where one of them has none. A `ScoreSamples`."""

    judges: Sequence[tuple[OpenJudge, float]]

    @property
    def models(self) -> list[Any]:
        """The reward models among the sources."""
        return [judge.reward_model.model for judge, _ in self.judges if isinstance(judge, RewardModelJudge)]

    def __call__(self, asked: Sequence[SampledPrompt]) -> list[list[float | None]]:
        """A score for every answer.

        Raises:
            JudgeError: no answer got one.
        """
        tasks = [_task(number, prompt) for number, prompt in enumerate(asked)]
        total: dict[str, float | None] = {candidate.id: 0.0 for task in tasks for candidate in task.candidates}
        for judge, weight in self.judges:
            found = _scores(judge, tasks)
            for identity, so_far in total.items():
                one = found.get(identity)
                total[identity] = None if so_far is None or one is None else so_far + weight * one
        if total and all(value is None for value in total.values()):
            raise JudgeError(
                f"not one of {len(total)} sampled answers got a score from {', '.join(judge.name for judge, _ in self.judges)}. "
                "Try the judge on a few candidates first, then run again."
            )
        return [[total[_identity(n, prompt, text)] for text in prompt.texts] for n, prompt in enumerate(asked)]


def open_rewards(work: Work, parts: Sequence[RewardPart]) -> Rewards:
    """The sources, with their models loaded."""
    return Rewards([(_open(work, part), part.weight) for part in parts])


def for_part(work: Work, prefix: str) -> Work:
    """The work as a judge sees it whose models are inputs with this prefix."""

    def own(names: Mapping[str, T]) -> dict[str, T]:
        return {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}

    return replace(work, inputs={**work.inputs, **own(work.inputs)}, identities={**work.identities, **own(work.identities)})


def _open(work: Work, part: RewardPart) -> OpenJudge:
    if part.judge is None:
        reward_model = load_reward_model(read_pointer(work.inputs[REWARD_MODEL]))
        return RewardModelJudge("reward_model", reward_model, work.runtime.per_device_eval_batch_size)
    return open_judge(for_part(work, part.inputs), part.judge, part.servers)


def _identity(number: int, prompt: SampledPrompt, text: str) -> str:
    """Equal answers to a prompt are one answer, judged once. A prompt may be asked twice in one update."""
    return candidate_id(f"{number} {prompt.prompt_id}", "policy", text)


def _task(number: int, prompt: SampledPrompt) -> Task:
    candidates: dict[str, Candidate] = {}
    for text, finish in zip(prompt.texts, prompt.finishes, strict=True):
        identity = _identity(number, prompt, text)
        candidates.setdefault(
            identity, Candidate(id=identity, prompt_id=prompt.prompt_id, text=text, author="policy", finish=finish)
        )
    return Task(f"{number} {prompt.prompt_id}", prompt.messages, tuple(candidates.values()))


def _scores(judge: OpenJudge, tasks: Sequence[Task]) -> dict[str, float]:
    """Grades as they are, comparisons as Bradley-Terry strengths; an answer without equals to compare with has strength 0."""
    verdicts: dict[str, list[Verdict]] = defaultdict(list)
    for judged in judge.judge(tasks):
        verdicts[judged.prompt_id].extend(judged.verdicts)
    advantage = judge_advantage([one for some in verdicts.values() for one in some if isinstance(one, Comparison)])
    scores: dict[str, float] = {}
    for task in tasks:
        of_task = verdicts[task.prompt_id]
        grades = [verdict for verdict in of_task if isinstance(verdict, Grade)]
        comparisons = [verdict for verdict in of_task if isinstance(verdict, Comparison)]
        if not of_task and len(task.candidates) == 1:
            scores[task.candidates[0].id] = 0.0
        scores |= mean_grade(grades, temperature=1.0)
        scores |= bradley_terry(comparisons, advantage) if comparisons else {}
    return scores
