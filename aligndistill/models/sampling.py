"""k samples per prompt: the prompt is prefilled once, finished rows leave the batch, log-probs are kept.

Randomness belongs to the sample, not to the batch: each (seed, prompt, sample number) has its own stream of uniforms, turned into
tokens by the inverse of the cumulative distribution. So neither the batch size, nor the neighbours, nor a resumed run changes what
is drawn (up to the rounding of the logits).

Shapes: N rows (a prompt's sample each), P prompt tokens, T new tokens, V vocabulary.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from aligndistill.models.decoding import Decoding, RepeatedPrompts, SharedPrompts, StaticPrompts, attention_for_decoding
from aligndistill.models.load import LanguageModel
from aligndistill.records import Finish


@dataclass(frozen=True)
class SampleRequest:
    """A prompt to answer: its ids, a key that names it for the random stream, and the sample numbers wanted."""

    prompt: list[int]
    key: str
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Sampled:
    """One sampled response.

    Attributes:
        ids: the tokens, the end token included when there is one.
        logprobs: log-probability of each token at the sampling temperature, nats.
        finish: `stop` when it ended by itself.
    """

    ids: list[int]
    logprobs: list[float]
    finish: Finish


@torch.no_grad()
def sample(
    language_model: LanguageModel,
    requests: Sequence[SampleRequest],
    *,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    compiled: bool = False,
) -> list[list[Sampled]]:
    """Sample every request at once, as one batch.

    Args:
        temperature: the logits are divided by it; 0 takes the likeliest token.
        compiled: compile the step from one token to the next (see `decoding.StaticPrompts`), where the model lets it.

    Returns:
        For each request, its samples in the order of their numbers.
    """
    with attention_for_decoding(language_model.model):
        return _sample(language_model, requests, temperature, max_new_tokens, seed, compiled)


def _sample(
    language_model: LanguageModel,
    requests: Sequence[SampleRequest],
    temperature: float,
    max_new_tokens: int,
    seed: int,
    compiled: bool,
) -> list[list[Sampled]]:
    conversation, device = language_model.conversation, language_model.device
    repeats = len(requests[0].samples)
    assert all(len(request.samples) == repeats for request in requests), "every request of a batch has as many samples"
    uniforms_NT = torch.stack(
        [uniforms(seed, request.key, number, max_new_tokens) for request in requests for number in request.samples]
    ).to(device)
    eos_ids = torch.tensor(sorted(conversation.eos_ids), device=device)

    logits_BV, positions_B, decoding = _prefill(language_model, requests, max_new_tokens, compiled)
    logits_NV, positions_N = (x.repeat_interleave(repeats, 0) for x in (logits_BV, positions_B))
    rows = torch.arange(len(requests) * repeats, device=device)  # which sample each live row is
    tokens_NT = torch.full((len(rows), max_new_tokens), conversation.pad_id, dtype=torch.long, device=device)
    logprobs_NT = torch.zeros(len(rows), max_new_tokens, device=device)
    lengths_N = torch.full((len(rows),), max_new_tokens, device=device)
    stopped_N = torch.zeros(len(rows), dtype=torch.bool, device=device)

    for step in range(max_new_tokens):
        logprobs_RV = (logits_NV.float() / temperature if temperature > 0 else logits_NV.float()).log_softmax(-1)
        chosen_R = draw_tokens(logprobs_RV, uniforms_NT[rows, step]) if temperature > 0 else logprobs_RV.argmax(-1)
        tokens_NT[rows, step] = chosen_R
        logprobs_NT[rows, step] = logprobs_RV.gather(-1, chosen_R.unsqueeze(-1)).squeeze(-1)
        ended_R = torch.isin(chosen_R, eos_ids)
        lengths_N[rows[ended_R]] = step + 1
        stopped_N[rows[ended_R]] = True
        live = (~ended_R).nonzero().squeeze(-1)
        if len(live) == 0 or step == max_new_tokens - 1:
            break
        if len(live) < len(rows):
            rows, chosen_R, positions_N = rows[live], chosen_R[live], positions_N[live]
            decoding.keep(live)
        logits_NV, positions_N = decoding.next_logits(chosen_R, positions_N), positions_N + 1

    samples = [
        Sampled(tokens_NT[n, :length].tolist(), logprobs_NT[n, :length].tolist(), "stop" if stopped else "length")
        for n, (length, stopped) in enumerate(zip(lengths_N.tolist(), stopped_N.tolist(), strict=True))
    ]
    return [samples[start : start + repeats] for start in range(0, len(samples), repeats)]


def _prefill(
    language_model: LanguageModel, requests: Sequence[SampleRequest], max_new_tokens: int, compiled: bool
) -> tuple[Tensor, Tensor, Decoding]:
    """Run the left-padded prompts once; their last logits, their lengths, and what decodes their samples."""
    model, pad_id, device = language_model.model, language_model.conversation.pad_id, language_model.device
    prompts, repeats = [request.prompt for request in requests], len(requests[0].samples)
    width = max(len(prompt) for prompt in prompts)
    ids_BP = torch.tensor([[pad_id] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask_BP = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    positions_BP = (mask_BP.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    output = model(
        input_ids=ids_BP,
        attention_mask=mask_BP,
        position_ids=positions_BP,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    decoding: Decoding
    if compiled and StaticPrompts.takes(cache):
        decoding = StaticPrompts(model, cache, mask_BP, repeats, max_new_tokens)
    elif language_model.decodes_shared(width + max_new_tokens):
        decoding = SharedPrompts(model, cache, mask_BP, repeats, max_new_tokens)
    else:
        decoding = RepeatedPrompts(model, cache, mask_BP, repeats)
    return output.logits[:, -1], mask_BP.sum(-1), decoding


def uniforms(seed: int, key: str, number: int, count: int) -> Tensor:
    """The stream of uniforms in [0, 1) that belongs to one sample."""
    digest = hashlib.sha256(f"{seed}:{key}:{number}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(count, generator=generator)


def draw_tokens(logprobs_NV: Tensor, uniforms_N: Tensor) -> Tensor:
    """Inverse-CDF sampling: the first token whose cumulative probability passes the uniform."""
    cumulative_NV = logprobs_NV.double().exp().cumsum(-1)
    # Scaled by the total, so that rounding can never leave the uniform beyond the last token.
    thresholds_N1 = uniforms_N.double().unsqueeze(-1) * cumulative_NV[:, -1:]
    return torch.searchsorted(cumulative_NV, thresholds_N1, right=True).squeeze(-1).clamp(max=logprobs_NV.shape[-1] - 1)
