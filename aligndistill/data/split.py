"""Splits prompts into training and held-out prompts."""

from aligndistill.records import Split, content_hash


def split_of(prompt_id: str, held_out: float) -> Split:
    """The split of a prompt, from its id alone, so it does not change when data is added or read in another order.

    The id is hashed to a point in [0, 1), and the points below `held_out` are held out. Raising `held_out` therefore only
    moves prompts from `train` to `held_out`.

    Args:
        prompt_id: see `records.prompt_id`.
        held_out: the share of prompts to hold out, in [0, 1].
    """
    point = int(content_hash("split", prompt_id), 16) / 2**64
    return "held_out" if point < held_out else "train"
