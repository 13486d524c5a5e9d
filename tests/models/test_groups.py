"""Rows that share their prompt against rows laid out apart, and both against plain transformers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from aligndistill.models import logprobs as logprobs_module
from aligndistill.models.attention import FLEX, GROUPED
from aligndistill.models.groups import GroupedBatch, TokenGroup, attention_mask, collate, sharing_pays
from aligndistill.models.load import LanguageModel
from aligndistill.models.logprobs import token_logprobs
from aligndistill.models.prompt_sharing import shares_prompt_exactly
from aligndistill.models.scoring import score_groups
from tests.tiny_models import random_groups, tiny_language_model, tiny_model

EXACT = ["llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "gemma", "mistral"]
RAGGED = random_groups([(7, [4, 6, 1, 3]), (3, [5, 2]), (9, [8]), (1, [1, 7, 2])])


def plain_logprobs(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    """What the words say: one unpadded row, the model's own logits, log_softmax, and the token that follows."""
    logits_TV = model(input_ids=torch.tensor([prompt + response])).logits[0].double()
    logprobs_TV = logits_TV.log_softmax(-1)
    return torch.stack([logprobs_TV[len(prompt) - 1 + t, token] for t, token in enumerate(response)])


def plain(model: Any, groups: list[TokenGroup]) -> list[list[Tensor]]:
    return [[plain_logprobs(model, group.prompt, response) for response in group.responses] for group in groups]


def close(ours_BKR: Tensor, theirs: list[list[Tensor]], tolerance: float = 1e-4) -> bool:
    same = True
    for b, responses in enumerate(theirs):
        for k, expected_R in enumerate(responses):
            same &= bool((ours_BKR[b, k, : len(expected_R)] - expected_R).abs().max() < tolerance)
            same &= bool((ours_BKR[b, k, len(expected_R) :] == 0).all())
        same &= bool((ours_BKR[b, len(responses) :] == 0).all())
    return same


def weighted(logprobs_BKR: Tensor) -> Tensor:
    """A number in which every token has a weight of its own, so that no two gradients can be mistaken."""
    return sum(weight * value for weight, value in enumerate(logprobs_BKR[logprobs_BKR != 0], start=1)) / 100  # type: ignore[return-value]


def gradients(model: Any, value: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(value, list(model.parameters())))


def largest_difference(some: list[Tensor], others: list[Tensor]) -> float:
    return max(float((one - other).abs().max() / other.abs().max().clamp(min=1)) for one, other in zip(some, others, strict=True))


@pytest.mark.parametrize("shape", EXACT)
@pytest.mark.parametrize("groups", [RAGGED[:1], RAGGED[1:2], RAGGED[2:3], RAGGED], ids=["four", "two", "one", "ragged"])
@pytest.mark.parametrize("attention", [GROUPED, "sdpa", "eager"])
def test_packed_groups_are_their_separate_rows(shape: str, groups: list[TokenGroup], attention: str) -> None:
    lm = tiny_language_model(shape)
    assert lm.shares_prompt
    assert lm.model.config._attn_implementation == GROUPED  # what it was found to be exact under
    lm.model.set_attn_implementation(attention)
    packed_BKR = token_logprobs(lm.model, collate(groups, 0, share=True), share=True)
    apart_BKR = token_logprobs(lm.model, collate(groups, 0, share=False), share=False)
    expected = plain(lm.model, groups)
    assert close(packed_BKR, expected)
    assert close(apart_BKR, expected)

    by_hand = gradients(lm.model, weighted(torch.cat([row for rows in expected for row in rows])))
    assert largest_difference(gradients(lm.model, weighted(packed_BKR)), by_hand) < 1e-4
    assert largest_difference(gradients(lm.model, weighted(apart_BKR)), by_hand) < 1e-4


@pytest.mark.parametrize("shape", [shape for shape in EXACT if shape != "gpt2"])  # transformers' GPT-2 does not take it
@torch.no_grad()
def test_flex_attention_gives_the_same(shape: str) -> None:
    """Not compiled, and forwards alone: torch has no backward pass for it on a CPU."""
    lm = tiny_language_model(shape)
    expected = plain(lm.model, RAGGED)
    lm.model.set_attn_implementation(FLEX)
    with torch.compiler.set_stance("force_eager"):
        for share in (True, False):
            assert close(token_logprobs(lm.model, collate(RAGGED, 0, share), share), expected)
        assert shares_prompt_exactly(lm.model, 0, token_logprobs)
    assert lm.model.config._attn_implementation == FLEX
    assert lm.shares(RAGGED[:1])


@pytest.mark.process  # the compiler is one
@torch.no_grad()
def test_flex_attention_is_compiled_for_every_length_at_once() -> None:
    lm = tiny_language_model("llama")
    lm.model.set_attn_implementation(FLEX)
    graphs: list[int] = []
    for prompt in (9, 14, 25, 11, 31, 17):
        groups = random_groups([(prompt, [4, 6]), (prompt - 2, [5, 3])], seed=prompt)
        assert close(token_logprobs(lm.model, collate(groups, 0, share=True), share=True), plain(tiny_model("llama"), groups))
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs[2:] == [graphs[2]] * 4


@pytest.mark.parametrize("broken", ["mask", "positions"])
def test_the_mask_and_the_restarted_positions_are_both_needed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_language_model("llama")
    lm.model.set_attn_implementation("sdpa")
    batch = collate(RAGGED, 0, share=True)
    if broken == "mask":

        def causal(segments_NT: Tensor, dtype: torch.dtype) -> Tensor:
            return attention_mask(torch.where(segments_NT > 0, 1, segments_NT), dtype)

        monkeypatch.setattr(logprobs_module, "attention_mask", causal)
    else:
        row_T = torch.arange(batch.positions_NT.shape[1])
        batch = GroupedBatch(**{**vars(batch), "positions_NT": row_T.expand_as(batch.positions_NT)})
    packed_BKR = token_logprobs(lm.model, batch, share=True)
    expected = plain(lm.model, RAGGED)
    assert not close(packed_BKR, expected, tolerance=0.1)
    # Either way a group's first response has the position that it has alone.
    assert close(packed_BKR[2:3], expected[2:3])


@pytest.mark.parametrize("shape", ["mistral_window", "gemma2"])
def test_a_model_that_cannot_share_is_computed_apart_and_right(shape: str) -> None:
    lm = tiny_language_model(shape)
    assert not lm.shares_prompt
    assert not lm.shares(RAGGED)
    assert lm.model.config._attn_implementation != GROUPED
    expected = plain(lm.model, RAGGED)
    apart_BKR = token_logprobs(lm.model, collate(RAGGED, 0, share=False), share=False)
    assert close(apart_BKR, expected)
    by_hand = gradients(lm.model, weighted(torch.cat([row for rows in expected for row in rows])))
    assert largest_difference(gradients(lm.model, weighted(apart_BKR)), by_hand) < 1e-4
    # And sharing would have been wrong: what the probe found is true.
    assert not close(token_logprobs(lm.model, collate(RAGGED, 0, share=True), share=True), expected, tolerance=1e-3)


def test_a_window_wider_than_the_measured_rows_is_asked_of_every_batch() -> None:
    lm = tiny_language_model("mistral", sliding_window=20)
    assert lm.shares_prompt  # the measured rows fit into the window
    inside, beyond = random_groups([(15, [5, 5, 5, 5]), (15, [5, 6, 5, 5])])
    assert lm.shares([inside])
    assert not lm.shares([inside, beyond])
    for groups in ([inside], [beyond]):
        share = lm.shares(groups)
        assert close(token_logprobs(lm.model, collate(groups, 0, share), share), plain(lm.model, groups))
    # Packed, its responses would see further back than they do alone.
    longer = random_groups([(30, [5, 5])])
    packed_BKR = token_logprobs(lm.model, collate(longer, 0, share=True), share=True)
    assert not close(packed_BKR, plain(lm.model, longer), tolerance=1e-2)


@pytest.mark.parametrize(
    ("sizes", "fits"),
    # The second is two tokens wider than the window, of which the last one predicts nothing; of the third, so are separate rows.
    [((12, [6, 7, 7]), True), ((12, [6, 7, 9]), False), ((60, [20, 20, 20]), False)],
)
def test_a_window_of_places_is_asked_for_the_whole_row(sizes: tuple[int, list[int]], fits: bool) -> None:
    """GPT-Neo's window of 32 tokens knows nothing of the positions in a shared row."""
    lm = tiny_language_model("gpt_neo", max_position_embeddings=512)
    assert lm.shares_prompt  # the measured rows fit
    groups = random_groups([sizes])
    expected = plain(lm.model, groups)
    assert lm.shares(groups) == fits
    assert close(token_logprobs(lm.model, collate(groups, 0, share=False), share=False), expected)
    assert close(token_logprobs(lm.model, collate(groups, 0, share=True), share=True), expected) == fits


def test_a_mask_of_places_is_asked_for_the_whole_row() -> None:
    """GPT-Neo's causal mask has as many places as the model has positions."""
    lm = tiny_language_model("gpt_neo", max_position_embeddings=24)
    groups = random_groups([(10, [8, 8])])
    assert lm.shares_prompt
    assert not lm.shares(groups)
    assert close(token_logprobs(lm.model, collate(groups, 0, share=False), share=False), plain(lm.model, groups))
    with pytest.raises(RuntimeError, match="size"):
        token_logprobs(lm.model, collate(groups, 0, share=True), share=True)


@pytest.mark.parametrize("share", [True, False])
def test_chunks_of_the_head_change_nothing(share: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_language_model("qwen2")
    many = random_groups([(4, [30, 29]), (3, [25, 8])])  # 92 scored tokens; chunks hold 64 at least
    batch = collate(many, 0, share)
    whole_BKR = token_logprobs(lm.model, batch, share)
    whole = gradients(lm.model, weighted(whole_BKR))
    calls: list[int] = []
    lm.model.lm_head.register_forward_hook(lambda module, args, output: calls.append(args[0].shape[0]))
    chunks: list[int] = []
    plain_read = logprobs_module.read_logits
    monkeypatch.setattr(
        logprobs_module, "read_logits", lambda logits, *rest: chunks.append(len(logits)) or plain_read(logits, *rest)
    )
    monkeypatch.setattr(logprobs_module, "HEAD_ELEMENTS", 1)
    chunked_BKR = token_logprobs(lm.model, batch, share)
    assert chunks == [64, 28]
    assert calls == [92]  # one call of the module, which gathers the head's weights once under ZeRO-3
    assert torch.equal(chunked_BKR, whole_BKR) or (chunked_BKR - whole_BKR).abs().max() < 1e-6
    assert largest_difference(gradients(lm.model, weighted(chunked_BKR)), whole) < 1e-5
    with torch.no_grad():
        assert (token_logprobs(lm.model, batch, share) - whole_BKR).abs().max() < 1e-6


def test_only_response_positions_reach_the_head() -> None:
    lm = tiny_language_model("llama")
    seen: list[int] = []
    lm.model.lm_head.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[0]))
    token_logprobs(lm.model, collate(RAGGED, 0, share=True), share=True)
    assert seen == [sum(len(response) for group in RAGGED for response in group.responses)]


def scores(lm: LanguageModel, groups: list[TokenGroup], batch_size: int) -> list[list[float]]:
    found = {one.index: [response.logprob_nats for response in one.responses] for one in score_groups(lm, groups, batch_size)}
    return [found[index] for index in range(len(groups))]


@pytest.mark.parametrize("shape", ["llama", "gpt2", "mistral_window"])
def test_batch_size_order_and_padding_id_change_nothing(shape: str) -> None:
    lm = tiny_language_model(shape)
    expected = [[response_R.sum().item() for response_R in responses] for responses in plain(lm.model, RAGGED)]
    for batch_size in (1, 2, 4):
        for got, want in zip(scores(lm, RAGGED, batch_size), expected, strict=True):
            assert got == pytest.approx(want, abs=1e-4)
    for got, want in zip(scores(lm, RAGGED[::-1], 3), expected[::-1], strict=True):
        assert got == pytest.approx(want, abs=1e-4)
    for share in {False, lm.shares_prompt}:
        for pad_id in (0, 17, 300):
            assert close(token_logprobs(lm.model, collate(RAGGED, pad_id, share), share), plain(lm.model, RAGGED))


def test_the_rows_of_the_picture() -> None:
    batch = collate([TokenGroup([10, 11, 12], [[20, 21], [30]]), TokenGroup([13], [[40]])], pad_id=0, share=True)
    assert batch.input_ids_NT.tolist() == [[10, 11, 12, 20, 21, 30], [13, 40, 0, 0, 0, 0]]
    assert batch.positions_NT.tolist() == [[0, 1, 2, 3, 4, 3], [0, 1, 0, 0, 0, 0]]
    assert batch.segments_NT.tolist() == [[0, 0, 0, 1, 1, 2], [0, 1, -1, -1, -1, -1]]
    assert batch.predictors_S.tolist() == [2, 3, 2, 6]
    assert batch.targets_S.tolist() == [20, 21, 30, 40]
    assert batch.tokens_BKR.tolist() == [[[True, True], [True, False]], [[True, False], [False, False]]]
    assert batch.ends_S.tolist() == [4, 5, 7]
    assert batch.valid_BK.tolist() == [[True, True], [True, False]]
    assert batch.lengths_BK.tolist() == [[2, 1], [1, 0]]
    allowed_TT = attention_mask(batch.segments_NT, torch.float32)[0, 0] == 0
    assert allowed_TT.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 1],
    ]


def test_sharing_pays_for_long_prompts_and_not_for_long_answers() -> None:
    long_prompt, long_answers = random_groups([(200, [10] * 4)]), random_groups([(5, [200] * 4)])
    assert sharing_pays(long_prompt, hidden_size=64, grouped=False)
    assert not sharing_pays(long_answers, hidden_size=64, grouped=False)
    # Computed where it is allowed alone, a shared row costs less than the rows apart as soon as there is something to share.
    assert sharing_pays(long_answers, hidden_size=64, grouped=True)
    assert not sharing_pays(random_groups([(200, [200])]), hidden_size=64, grouped=True)


def test_half_precision_padding_is_never_nan() -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    logprobs_module.use_grouped_forward(model)
    with torch.no_grad():
        logprobs_BKR = token_logprobs(model, collate(RAGGED, 0, share=True), share=True)
    assert torch.isfinite(logprobs_BKR).all()
