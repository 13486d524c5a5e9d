"""Grades by a model that reads the answers' tokens itself: what the likelihood and the reward-model judges have in common."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from aligndistill.judges.protocol import Judged, Task
from aligndistill.models.conversation import Conversation
from aligndistill.models.groups import TokenGroup
from aligndistill.models.tokenise import Limits, PromptWithResponses, tokenise
from aligndistill.records import Grade, Usage
from aligndistill.store.cache import Cache, cache_key

UNLIMITED_TOKENS = 2**31


@dataclass(frozen=True)
class GroupGrades:
    """One value per response of a group, with the group's place in the list that was given."""

    index: int
    values: list[float]


GradeGroups = Callable[[Sequence[TokenGroup]], Iterator[GroupGrades]]
"""Grades token groups, in any order."""


@dataclass(frozen=True)
class GradeCache:
    """Where grades are kept, and the fingerprint of the model that gives them."""

    cache: Cache
    model: str


def grade_tasks(
    name: str,
    conversation: Conversation,
    positions: int | None,
    tasks: Sequence[Task],
    grade: GradeGroups,
    kept: GradeCache | None = None,
) -> Iterator[Judged]:
    """Tokenise tasks, grade them, and yield each; one whose prompt exceeds the model's positions gets grades without a value.

    Args:
        name: the judge's.
        positions: how many the model has; None where it does not say.
        kept: what was graded before is taken from there; None grades everything.
    """
    exchanges = [
        PromptWithResponses(task.messages, [c.text for c in task.candidates], [c.finish for c in task.candidates]) for task in tasks
    ]
    limit = UNLIMITED_TOKENS if positions is None else positions
    tokenised = tokenise(conversation, exchanges, Limits(limit, limit, positions))
    for index in set(range(len(tasks))) - set(tokenised.indices):
        yield _judged(name, tasks[index], [None] * len(tasks[index].candidates), 0)
    for graded in grade(tokenised.groups) if kept is None else cached_grades(tokenised.groups, grade, kept):
        yield _judged(name, tasks[tokenised.indices[graded.index]], graded.values, len(tokenised.groups[graded.index].prompt))


def cached_grades(groups: Sequence[TokenGroup], grade: GradeGroups, kept: GradeCache) -> Iterator[GroupGrades]:
    """A response is known by the model and all ids that it reads."""
    keys = [[cache_key(model=kept.model, prompt=g.prompt, response=response) for response in g.responses] for g in groups]
    known = kept.cache.get_many([key for row in keys for key in row])
    missing = [index for index, row in enumerate(keys) if not all(key in known for key in row)]
    for index in sorted(set(range(len(groups))) - set(missing)):
        yield GroupGrades(index, [known[key] for key in keys[index]])
    for graded in grade([groups[index] for index in missing]):
        index = missing[graded.index]
        for key, value in zip(keys[index], graded.values, strict=True):
            kept.cache.put(key, value)
        yield GroupGrades(index, graded.values)


def _judged(name: str, task: Task, values: Sequence[float | None], prompt_tokens: int) -> Judged:
    usage = Usage(calls=1, prompt_tokens=prompt_tokens)
    return Judged(
        task.prompt_id,
        tuple(
            Grade(prompt_id=task.prompt_id, candidate=candidate.id, value=value, judge=name, usage=usage)
            for candidate, value in zip(task.candidates, values, strict=True)
        ),
    )
