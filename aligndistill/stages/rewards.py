"""Judges as reward sources: verdicts on sampled answers become one expected score per answer, and sources are summed."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from aligndistill.config.objectives import WeightedReward
from aligndistill.errors import JudgeError
from aligndistill.judges.protocol import Judge, Task
from aligndistill.judges.reward_model import RewardModelJudge
from aligndistill.models.load import read_pointer
from aligndistill.models.reward import load_reward_model
from aligndistill.preferences.scores import first_position_logit, mean_grade, scores_from_comparisons
from aligndistill.processes.ranks import from_all, process_rank
from aligndistill.records import Candidate, Comparison, Grade, Verdict, candidate_id
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.stages.opening import open_judge
from aligndistill.training.on_policy.rollouts import SampledPrompt


@dataclass(frozen=True)
class Rewards:
    """The weighted sum of the sources' scores of an answer; None if a source has no score. A `ScoreSamples`."""

    judges: Sequence[tuple[Judge, float]]

    @property
    def models(self) -> list[Any]:
        """The reward models among the sources."""
        return [judge.reward_model.model for judge, _ in self.judges if isinstance(judge, RewardModelJudge)]

    def __call__(self, asked: Sequence[SampledPrompt]) -> list[list[float | None]]:
        """A score for every answer. A collective call: each process passes its own prompts.

        Raises:
            JudgeError: no answer of any process got a score, or the judge of some process failed. All processes raise it.
        """
        numbers = _numbers(asked)
        tasks = [_task(number, prompt) for number, prompt in zip(numbers, asked, strict=True)]
        total: dict[str, float | None] = {candidate.id: 0.0 for task in tasks for candidate in task.candidates}
        for judge, weight in self.judges:
            found = _scores(judge, tasks)
            for identity, so_far in total.items():
                one = found.get(identity)
                total[identity] = None if so_far is None or one is None else so_far + weight * one
        scored = [value is not None for value in total.values()]
        counts = from_all(lambda: [(sum(scored), len(scored))])
        answers = sum(of_process for _, of_process in counts)
        if answers and not any(of_process for of_process, _ in counts):
            raise JudgeError(
                f"none of {answers} sampled answers got a score from {', '.join(judge.name for judge, _ in self.judges)}. "
                "Test the judge on a few candidates, then run again."
            )
        return [[total[_identity(n, prompt, text)] for text in prompt.texts] for n, prompt in zip(numbers, asked, strict=True)]


def open_rewards(
    context: StageContext,
    parts: Sequence[WeightedReward],
    models: Mapping[str, ModelSource],
    reward_model: Path | None,
    seed: int,
) -> Rewards:
    """Open the sources and load their models.

    Args:
        models: the models that the judges name.
        reward_model: the run's.
    """

    def opened(part: WeightedReward) -> Judge:
        if isinstance(part.source, str):
            assert part.source == "reward_model" and reward_model is not None, "the config is resolved and checked"
            loaded = load_reward_model(read_pointer(reward_model), members=part.pessimism > 0)
            batch_size = context.runtime.per_device_eval_batch_size
            return RewardModelJudge("reward_model", loaded, batch_size, pessimism=part.pessimism)
        return open_judge(context, part.source, models, seed)

    return Rewards([(opened(part), part.weight) for part in parts])


def _numbers(asked: Sequence[SampledPrompt]) -> list[int]:
    """How often each prompt occurred before in this update, in any process.

    It makes an answer's id, which may decide which of two answers is shown first, independent of how prompts were divided.
    """
    everyones = from_all(lambda: [[prompt.prompt_id for prompt in asked]])
    seen: Counter[str] = Counter()
    numbers = []
    for of_place in zip_longest(*everyones):  # prompts are dealt out to processes in turn
        for process, identity in enumerate(of_place):
            if identity is not None:
                if process == process_rank():
                    numbers.append(seen[identity])
                seen[identity] += 1
    return numbers


def _identity(number: int, prompt: SampledPrompt, text: str) -> str:
    """The id of an answer: equal answers to a prompt are judged once. A prompt may occur twice in one update."""
    return candidate_id(f"{number} {prompt.prompt_id}", "policy", text)


def _task(number: int, prompt: SampledPrompt) -> Task:
    candidates: dict[str, Candidate] = {}
    for text, finish in zip(prompt.texts, prompt.finishes, strict=True):
        identity = _identity(number, prompt, text)
        candidates.setdefault(
            identity, Candidate(id=identity, prompt_id=prompt.prompt_id, text=text, author="policy", finish=finish)
        )
    return Task(f"{number} {prompt.prompt_id}", prompt.messages, tuple(candidates.values()))


def _scores(judge: Judge, tasks: Sequence[Task]) -> dict[str, float]:
    """Grades as they are, comparisons as Bradley-Terry strengths; an answer with nothing to compare with has strength 0.

    The position bias is estimated from the comparisons of all processes, since it is a property of the judge.
    """
    verdicts: dict[str, list[Verdict]] = defaultdict(list)

    def comparisons_here() -> list[Comparison]:
        for judged in judge.judge(tasks):
            verdicts[judged.prompt_id].extend(judged.verdicts)
        return [one for some in verdicts.values() for one in some if isinstance(one, Comparison)]

    advantage = first_position_logit(from_all(comparisons_here))
    scores: dict[str, float] = {}
    for task in tasks:
        of_task = verdicts[task.prompt_id]
        grades = [verdict for verdict in of_task if isinstance(verdict, Grade)]
        comparisons = [verdict for verdict in of_task if isinstance(verdict, Comparison)]
        if not of_task and len(task.candidates) == 1:
            scores[task.candidates[0].id] = 0.0
        scores |= mean_grade(grades, temperature=1.0)
        scores |= scores_from_comparisons(comparisons, advantage) if comparisons else {}
    return scores
