"""Figures of what a step wrote: how diverse it is, how new against what was there, and where it comes from."""

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from aligndistill.data.overlap import nearest_by_rouge_l, units
from aligndistill.elicitation.collecting import Collected, shown_text, training
from aligndistill.evaluation.text_metrics import distinct_n
from aligndistill.records import Prompt, content_hash

MOST_MEASURED = 500
"""Prompts of each kind that diversity is measured on, at most: nearest neighbours take a comparison for each pair."""

MOST_COMPARED = 2000
"""Training prompts that new ones are compared with for novelty, at most."""

FERTILE = 10
SAMPLES_OF_OPERATION = 3


def step_figures(before: Sequence[Prompt], collected: Collected) -> dict[str, Any]:
    """The figures of `ElicitationMetrics` that are read from the prompts.

    Args:
        before: all prompts that the step was given, in both splits.
    """
    old, new = training(before), collected.kept
    if not new:
        return {}
    size = min(MOST_MEASURED, len(old), len(new))
    measured = drawn(new, size)
    compared = [(one.id, units(last_turn(one))) for one in drawn(old, MOST_COMPARED)]
    nearest = [nearest_by_rouge_l(units(last_turn(one)), compared)[1] for one in drawn(new, MOST_MEASURED)]
    of_category = collected.categories.most_common()
    return {
        "diversity": diversity([last_turn(one) for one in measured]),
        "diversity_before": diversity([last_turn(one) for one in drawn(old, size)]),
        "novelty": 1 - sum(nearest) / len(nearest),
        "fertile": fertile_share(new),
        "categories": {name: count / len(new) for name, count in of_category},
        "samples": samples(before, new),
    }


def diversity(texts: Sequence[str]) -> dict[str, Any] | None:
    """How unlike each other texts are. All of it depends on how many texts there are: compare equal numbers.

    Returns:
        The fields of `DiversityMetrics`, where words are units; None for fewer than two texts.
    """
    if len(texts) < 2:
        return None
    split = [units(text) for text in texts]
    spaced = [" ".join(one) for one in split]
    whole = "\n".join(texts).encode()
    nearest = sorted(
        nearest_by_rouge_l(one, [("", other) for place, other in enumerate(split) if place != number])[1]
        for number, one in enumerate(split)
    )
    return {
        "prompts": len(texts),
        "distinct_1": distinct_n(spaced, 1),
        "distinct_2": distinct_n(spaced, 2),
        "compression": len(whole) / len(zlib.compress(whole, 9)),
        "nearest_mean": sum(nearest) / len(nearest),
        "nearest_p10": nearest[(len(nearest) - 1) // 10],
    }


def fertile_share(new: Sequence[Prompt]) -> float | None:
    """The share of the new prompts that go back to the ten roots with the most of them; None if none goes back to another."""
    roots = Counter(one.root for one in new if one.root != one.id)
    most = sum(count for _, count in roots.most_common(FERTILE))
    return most / roots.total() if roots else None


def samples(before: Sequence[Prompt], new: Sequence[Prompt]) -> list[dict[str, str | None]]:
    """Up to three new prompts of each operation, with the text of the prompt that each was made from."""
    parents = {one.id: one for one in (*before, *new)}
    shown: Counter[str] = Counter()
    found = []
    for one in drawn(new, len(new)):
        assert one.lineage is not None
        if shown[one.lineage.operation] < SAMPLES_OF_OPERATION:
            shown[one.lineage.operation] += 1
            parent = parents.get(one.lineage.parent or "")
            turn = shown_text if one.lineage.operation == "expand" else last_turn  # what the model was shown
            found.append(
                {
                    "operation": one.lineage.operation,
                    "author": one.lineage.author,
                    "topic": one.lineage.topic or None,
                    "parent": turn(parent) if parent is not None else None,
                    "text": last_turn(one),
                }
            )
    return sorted(found, key=lambda sample: str(sample["operation"]))


def last_turn(prompt: Prompt) -> str:
    """The text of the last user turn: what is new in a new prompt."""
    return prompt.messages[-1].content


def drawn(prompts: Sequence[Prompt], most: int) -> list[Prompt]:
    """At most so many of the prompts, by the hash of their ids."""
    return sorted(prompts, key=lambda one: content_hash("drawn", one.id))[:most]
