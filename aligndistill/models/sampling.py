"""k samples per prompt: the prompt is prefilled once, finished rows leave the batch, and log-probs are recorded.

Randomness depends on the sample, not on the batch: each (seed, prompt, sample number) has its own stream of uniforms, turned into
tokens by the inverse of the cumulative distribution. So the samples do not depend on the batch size, on the other prompts of the
batch, or on interruptions (up to the rounding of the logits).

Shapes: N rows (a prompt's sample each), P prompt tokens, T new tokens, V vocabulary.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from aligndistill.models.decoding import Decoding, RepeatedPrompts, SharedPrompts, StaticPrompts, attention_for_decoding
from aligndistill.models.load import LanguageModel
from aligndistill.records import Finish

ROWS_DRAWN = 16
"""Rows whose tokens are drawn at once on a CPU: few enough that a large vocabulary's weights stay in the processor's cache."""

BLOCK = 1024
"""Tokens whose probabilities are summed in single precision before the cumulative distribution is searched."""


@dataclass(frozen=True)
class SampleRequest:
    """A prompt to answer: its ids, a key for its random stream, and the numbers of the requested samples."""

    prompt: list[int]
    key: str
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Sampled:
    """One sampled response.

    Attributes:
        ids: the tokens, including the end token if there is one.
        logprobs: log-probability of each token at the sampling temperature, nats.
        finish: `stop` if it ended by itself, else `length`.
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
        temperature: divides the logits; 0 takes the most likely token.
        compiled: compile the decoding step (see `decoding.StaticPrompts`) if the model supports it.

    Returns:
        For each request, its samples in the order of their numbers.
    """
    with attention_for_decoding(language_model.model):
        return _sample(language_model, requests, temperature, max_new_tokens, seed, compiled)


@torch.no_grad()
def stream(
    language_model: LanguageModel, request: SampleRequest, *, temperature: float, max_new_tokens: int, seed: int
) -> Iterator[int]:
    """Yields the tokens of one sample as they are drawn, the end token among them: those that `sample` gives.

    Args:
        request: with one sample number.
    """
    (number,) = request.samples
    uniforms_T = uniforms(seed, request.key, number, max_new_tokens).to(language_model.device)
    with attention_for_decoding(language_model.model):
        logits_1V, positions_1, decoding = _prefill(language_model, [request], max_new_tokens, compiled=False)
        for step in range(max_new_tokens):
            chosen_1, _ = draw_tokens(logits_1V, uniforms_T[step : step + 1], temperature)
            token = int(chosen_1)
            yield token
            if token in language_model.conversation.eos_ids or step == max_new_tokens - 1:
                return
            logits_1V, positions_1 = decoding.next_logits(chosen_1, positions_1), positions_1 + 1


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
    assert all(len(request.samples) == repeats for request in requests), (
        "all requests of a batch must have the same number of samples"
    )
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
        chosen_R, logprobs_NT[rows, step] = draw_tokens(logits_NV, uniforms_NT[rows, step], temperature)
        tokens_NT[rows, step] = chosen_R
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
    """Run the left-padded prompts once; returns their last logits, their lengths, and the cache that decodes their samples."""
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
    """The stream of uniforms in [0, 1) of one sample."""
    digest = hashlib.sha256(f"{seed}:{key}:{number}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(count, generator=generator)


def draw_tokens(logits_NV: Tensor, uniforms_N: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Inverse-CDF sampling: the first token whose cumulative probability passes the uniform, and its log-probability in nats.

    At temperature 0 it is the most likely token, and its log-probability at temperature 1.
    """
    rows = ROWS_DRAWN if logits_NV.device.type == "cpu" else len(logits_NV)
    drawn = [
        _draw(logits_RV.float(), uniforms_R, temperature)
        for logits_RV, uniforms_R in zip(logits_NV.split(rows), uniforms_N.split(rows), strict=True)
    ]
    return torch.cat([tokens_R for tokens_R, _ in drawn]), torch.cat([logprobs_R for _, logprobs_R in drawn])


def _draw(logits_RV: Tensor, uniforms_R: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    if temperature == 0:
        best = logits_RV.max(-1)
        return best.indices, best.values - logits_RV.logsumexp(-1)
    if temperature != 1:
        logits_RV = logits_RV / temperature
    rows, size = logits_RV.shape
    highest_R1 = logits_RV.amax(-1, keepdim=True)
    # Padded with weights of 0 to whole blocks. Only the sums of blocks are accumulated in double precision, and then one block.
    block = min(size, BLOCK)
    weights_RV = logits_RV.new_zeros(rows, -(-size // block) * block)
    torch.sub(logits_RV, highest_R1, out=weights_RV[:, :size]).exp_()
    blocks_RB = weights_RV.view(rows, -1, block).sum(-1).double().cumsum(-1)
    # Scaled by the total, so that rounding can never leave the uniform beyond the last token.
    thresholds_R1 = uniforms_R.double().unsqueeze(-1) * blocks_RB[:, -1:]
    block_R1 = torch.searchsorted(blocks_RB, thresholds_R1, right=True).clamp(max=blocks_RB.shape[-1] - 1)
    before_R1 = torch.where(block_R1 > 0, blocks_RB.gather(-1, (block_R1 - 1).clamp(min=0)), 0.0)
    within_RK = weights_RV.gather(-1, block_R1 * block + torch.arange(block, device=logits_RV.device)).double().cumsum(-1)
    # The block's sum was rounded to single precision: stay below the exact one, where a token can be drawn.
    rest_R1 = torch.minimum(thresholds_R1 - before_R1, within_RK[:, -1:] * (1 - 1e-12))
    tokens_R1 = block_R1 * block + torch.searchsorted(within_RK, rest_R1, right=True)
    logprobs_R1 = logits_RV.gather(-1, tokens_R1) - highest_R1 - blocks_RB[:, -1:].log().float()
    return tokens_R1.squeeze(-1), logprobs_R1.squeeze(-1)
