"""Grades by a local model that scores tokens: code shared by the likelihood and reward-model judges."""

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
    """One value per response of a group, with the group's index, and whether all were in the cache."""

    index: int
    values: list[float]
    cached: bool = False


GradeGroups = Callable[[Sequence[TokenGroup]], Iterator[GroupGrades]]
"""Grades token groups, in any order."""


@dataclass(frozen=True)
class GradeCache:
    """A cache of grades, and the fingerprint of the model that gives them."""

    cache: Cache
    model: str


def grade_tasks(
    name: str,
    conversation: Conversation,
    positions: int | None,
    tasks: Sequence[Task],
    grade: GradeGroups,
    grade_cache: GradeCache | None = None,
) -> Iterator[Judged]:
    """Tokenise tasks, grade them, and yield each; if a prompt exceeds the model's positions, its grades have no value.

    Args:
        name: the judge's.
        positions: how many positions the model has; None if unknown.
        grade_cache: grades from earlier runs; None disables caching.
    """
    exchanges = [
        PromptWithResponses(task.messages, [c.text for c in task.candidates], [c.finish for c in task.candidates]) for task in tasks
    ]
    limit = UNLIMITED_TOKENS if positions is None else positions
    tokenised = tokenise(conversation, exchanges, Limits(limit, limit, positions))
    for index in set(range(len(tasks))) - set(tokenised.indices):
        yield _judged(name, tasks[index], [None] * len(tasks[index].candidates), Usage(calls=1))
    for graded in grade(tokenised.groups) if grade_cache is None else cached_grades(tokenised.groups, grade, grade_cache):
        tokens = len(tokenised.groups[graded.index].prompt)
        usage = Usage(calls=1, prompt_tokens=tokens, cached=int(graded.cached))
        yield _judged(name, tasks[tokenised.indices[graded.index]], graded.values, usage)


def cached_grades(groups: Sequence[TokenGroup], grade: GradeGroups, grade_cache: GradeCache) -> Iterator[GroupGrades]:
    """Grade groups, using the cache. Its key is the model and the token ids of prompt and response."""
    keys = [[cache_key(model=grade_cache.model, prompt=g.prompt, response=response) for response in g.responses] for g in groups]
    known = grade_cache.cache.get_many([key for row in keys for key in row])
    missing = [index for index, row in enumerate(keys) if not all(key in known for key in row)]
    for index in sorted(set(range(len(groups))) - set(missing)):
        yield GroupGrades(index, [known[key] for key in keys[index]], cached=True)
    for graded in grade([groups[index] for index in missing]):
        index = missing[graded.index]
        for key, value in zip(keys[index], graded.values, strict=True):
            grade_cache.cache.put(key, value)
        yield GroupGrades(index, graded.values)


def _judged(name: str, task: Task, values: Sequence[float | None], usage: Usage) -> Judged:
    return Judged(
        task.prompt_id,
        tuple(
            Grade(prompt_id=task.prompt_id, candidate=candidate.id, value=value, judge=name, usage=usage)
            for candidate, value in zip(task.candidates, values, strict=True)
        ),
    )
