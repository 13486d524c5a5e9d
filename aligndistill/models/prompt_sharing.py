"""Whether a model gives the same log-probabilities when responses share their prompt's computation.

True for every transformer that uses the given attention mask and positions, and has a plain head. Sliding-window attention, scaled
logits or positions computed inside the model can break it, so it is measured once on the actual model. A window wider than the
measured rows breaks it only for rows longer than the window, which is checked for every batch. Most windows are of positions, so
that a prompt with one response must fit; GPT-Neo's is of places in the row, so that the prompt with all of them must.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from aligndistill.models.attention import FLEX, GROUPED
from aligndistill.models.groups import GroupedBatch, TokenGroup, collate, sharing_pays

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
HALF_PRECISION_TOLERANCE = 0.25


@torch.no_grad()
def shares_prompt_exactly(model: Any, pad_id: int, score: Callable[[Any, GroupedBatch, bool], Tensor]) -> bool:
    """Compare shared with separate rows on a small random batch, under `score` (log-probs in nats, or rewards).

    Sets the fastest attention of the model for which they are equal: `attention.GROUPED` on a CPU, else its own.
    """
    embeddings = int(model.get_input_embeddings().weight.shape[0])
    vocabulary = embeddings or int(model.config.vocab_size)  # under ZeRO-3 the local weight is empty
    generator = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        tokens: list[int] = torch.randint(vocabulary, (count,), generator=generator).tolist()
        return tokens

    groups = [TokenGroup(ids(7), [ids(4), ids(6), ids(1)]), TokenGroup(ids(3), [ids(5), ids(2)])]
    parameter = next(model.parameters())
    tolerance = TOLERANCE.get(parameter.dtype, HALF_PRECISION_TOLERANCE)
    plain = model.config._attn_implementation
    was_training = model.training
    model.eval()
    try:
        expected = score(model, to_device(collate(groups, pad_id, share=False), parameter.device), False)
        shared = to_device(collate(groups, pad_id, share=True), parameter.device)
        for attention in (GROUPED, plain) if plain == "sdpa" and parameter.device.type == "cpu" else (plain,):
            try:
                model.set_attn_implementation(attention)
                difference = (score(model, shared, True) - expected).float().masked_fill(~torch.isfinite(expected), 0)
                if bool(difference.abs().max() <= tolerance):
                    return True
            except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError):
                pass  # the model does not support such rows
        return False
    finally:
        model.train(was_training)


def best_shared(config: Any, groups: Sequence[TokenGroup]) -> bool:
    """Whether a model that passed `shares_prompt_exactly` should share the prompts of these groups: exact for them too, and
    cheaper.
    """
    longest = max(len(group.prompt) + len(response) for group in groups for response in group.responses)
    widest = max(group.tokens(share=True) for group in groups)
    grouped = config._attn_implementation in (GROUPED, FLEX)
    exact = sees_all_of(config, longest) and has_places_for(config, widest)
    return exact and sharing_pays(groups, config.get_text_config().hidden_size, grouped)


def sees_all_of(config: Any, length: int) -> bool:
    """Whether every layer's window covers a whole row of this many tokens."""
    text = config.get_text_config()
    windows = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return all(window is None or length <= window for window in windows)


def has_places_for(config: Any, width: int) -> bool:
    """Whether a model whose mask is by place in the row, not by position, covers a whole row of this width. That is GPT-Neo: its
    window is `window_size`, and its causal mask has `max_position_embeddings` places. True for all others.
    """
    text = config.get_text_config()
    window = getattr(text, "window_size", None)
    return window is None or width <= min(window, text.max_position_embeddings)


def to_device(batch: GroupedBatch, device: torch.device) -> GroupedBatch:
    """A batch on another device."""
    return GroupedBatch(**{name: value.to(device) for name, value in vars(batch).items()})
