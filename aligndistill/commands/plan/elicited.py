"""What the steps of `prompts.elicit` may ask for and write at most."""

import re
from collections.abc import Sequence

from aligndistill.config.elicitation import Curate, Evolve, Expand, GeneratedTopics, Magpie, Step
from aligndistill.elicitation.curation import read_topics
from aligndistill.records import Lineage, Prompt, content_hash


def share_of_requests(step: Step, prompts: Sequence[Prompt], given: Sequence[Prompt], counted: int, cached: int) -> float:
    """By how much to multiply what a dry run of a step counted.

    Args:
        prompts: all prompts that the step is to have.
        given: those that the dry run had.
        counted: requests of the dry run, which ends early: placeholders hold no lists.
        cached: replies of the dry run that are known.
    """
    known = cached * _shown(step, prompts) / max(_shown(step, given), 1)
    return max(most_requests(step, _shown(step, prompts)) - known, 0) / counted if counted else 0.0


def most_requests(step: Step, train: int) -> int:
    """The most requests of a step that shows models so many training prompts."""
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


def placeholder_prompts(name: str, step: Step, prompts: Sequence[Prompt]) -> list[Prompt]:
    """As many new prompts as a step may write, each as long as a training prompt, and like no other, so that filters keep it.

    Args:
        name: of the stage; ids begin with it.
    """
    train = [one for one in prompts if one.split == "train"]
    return [
        _placeholder(train[number % len(train)], f"{name}-{number}") for number in range(_most_prompts(step, _shown(step, prompts)))
    ]


def _most_prompts(step: Step, train: int) -> int:
    match step:
        case Evolve():
            return step.most_prompts(train)
        case Curate():
            return _topics(step) * step.per_topic
        case _:
            return step.target


def _placeholder(like: Prompt, identity: str) -> Prompt:
    letters = content_hash(identity)[:4].translate(str.maketrans("0123456789", "ghijklmnop"))
    last = like.messages[-1]
    messages = (*like.messages[:-1], last.model_copy(update={"content": re.sub(r"\w+", rf"\g<0>{letters}", last.content)}))
    lineage = Lineage(root=like.root, parent=like.id, operation="placeholder", author="placeholder")
    return like.model_copy(update={"id": identity, "messages": messages, "lineage": lineage})


def _topics(step: Curate) -> int:
    return step.topics.generate if isinstance(step.topics, GeneratedTopics) else len(read_topics(step.topics))


def _shown(step: Step, prompts: Sequence[Prompt]) -> int:
    """How many training prompts a step begins with: those that the student was weakest at, or all."""
    train = sum(one.split == "train" for one in prompts)
    return train if step.weak_seeds is None else min(step.weak_seeds, train)
