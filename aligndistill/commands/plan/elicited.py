"""What the steps of `prompts.elicit` may ask for and write at most."""

from collections.abc import Sequence

from aligndistill.config.elicitation import Curate, Evolve, Expand, GeneratedTopics, Magpie, Step
from aligndistill.elicitation.curation import read_topics
from aligndistill.records import Lineage, Prompt


def share_of_requests(step: Step, prompts: Sequence[Prompt], given: Sequence[Prompt], counted: int, cached: int) -> float:
    """By how much to multiply what a dry run of a step counted.

    Args:
        prompts: all prompts that the step is to have.
        given: those that the dry run had.
        counted: requests of the dry run, which ends early: placeholders hold no lists.
        cached: replies of the dry run that are known.
    """
    known = cached * _train(prompts) / max(_train(given), 1)
    return max(most_requests(step, _train(prompts)) - known, 0) / counted if counted else 0.0


def most_requests(step: Step, train: int) -> int:
    """The most requests of a step that is given so many training prompts."""
    match step:
        case Evolve():
            return step.most_requests(train)
        case Curate():
            lists = max(len(step.shares), 1) if isinstance(step.topics, GeneratedTopics) else 0
            subtopics = _topics(step) if step.subtopics else 0
            return lists + subtopics + step.limit(_topics(step) * step.per_topic, step.per_request)
        case Expand():
            return step.limit(step.target, step.per_request)
        case Magpie():
            return step.limit(step.target, per_request=1)


def placeholder_prompts(step: Step, prompts: Sequence[Prompt]) -> list[Prompt]:
    """As many new prompts as a step may write, each a copy of a training prompt under another id."""
    train = [one for one in prompts if one.split == "train"]
    return [_placeholder(train[number % len(train)], f"{step.name}-{number}") for number in range(_most_prompts(step, len(train)))]


def _most_prompts(step: Step, train: int) -> int:
    match step:
        case Evolve():
            return step.most_prompts(train)
        case Curate():
            return _topics(step) * step.per_topic
        case _:
            return step.target


def _placeholder(like: Prompt, identity: str) -> Prompt:
    lineage = Lineage(root=like.root, parent=like.id, operation="placeholder", author="placeholder")
    return like.model_copy(update={"id": identity, "lineage": lineage})


def _topics(step: Curate) -> int:
    return step.topics.generate if isinstance(step.topics, GeneratedTopics) else len(read_topics(step.topics))


def _train(prompts: Sequence[Prompt]) -> int:
    return sum(one.split == "train" for one in prompts)
