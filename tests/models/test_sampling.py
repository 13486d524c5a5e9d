import pytest
import torch
from scipy.stats import chisquare

from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel, wrap_language_model
from aligndistill.models.sampling import BLOCK, Sampled, SampleRequest, draw_tokens, sample, uniforms
from aligndistill.models.scoring import score_groups
from tests.tiny_models import random_groups, tiny_language_model, tiny_model, tiny_tokenizer

PROMPTS = [group.prompt for group in random_groups([(3, []), (11, []), (7, []), (1, []), (5, [])], seed=4)]
LENGTH = 12


def request(number: int, samples: tuple[int, ...] = (0, 1, 2)) -> SampleRequest:
    return SampleRequest(PROMPTS[number], key=f"prompt {number}", samples=samples)


def take(
    lm: LanguageModel, *requests: SampleRequest, temperature: float = 1.0, seed: int = 7, compiled: bool = False
) -> list[list[Sampled]]:
    return sample(lm, requests, temperature=temperature, max_new_tokens=LENGTH, seed=seed, compiled=compiled)


def often_ending(shape: str = "llama") -> LanguageModel:
    """Many tokens end an answer, so that rows end at different times."""
    model = tiny_model(shape)
    model.generation_config.eos_token_id = [1, *range(200, 240)]
    return wrap_language_model(model, tiny_tokenizer(), "chat")


@pytest.mark.parametrize("shape", ["llama", "gpt2", "mistral_window", "gemma2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_scoring(shape: str, temperature: float) -> None:
    lm = often_ending(shape)
    samples = take(lm, *map(request, range(5)), temperature=temperature)
    assert {one.finish for row in samples for one in row} == {"stop", "length"}
    for number, row in enumerate(samples):
        for one in row:
            ids = torch.tensor([PROMPTS[number] + one.ids])
            with torch.no_grad():
                logprobs_TV = (lm.model(input_ids=ids).logits[0].double() / temperature).log_softmax(-1)
            first = len(PROMPTS[number]) - 1
            expected = [logprobs_TV[first + t, token].item() for t, token in enumerate(one.ids)]
            assert one.logprobs == pytest.approx(expected, abs=1e-4)
    if temperature == 1.0:
        groups = [TokenGroup(prompt, [one.ids for one in row]) for prompt, row in zip(PROMPTS, samples, strict=True)]
        for scored in score_groups(lm, groups, batch_size=2):
            for one, rescored in zip(samples[scored.index], scored.responses, strict=True):
                assert sum(one.logprobs) == pytest.approx(rescored.logprob_nats, abs=1e-4)


@pytest.mark.parametrize("shape", ["llama", "mistral_window"])
def test_a_sample_is_its_own_whatever_is_drawn_beside_it(shape: str) -> None:
    lm = often_ending(shape)
    together = [[one.ids for one in row] for row in take(lm, *map(request, range(5)))]
    for number in range(5):
        assert [one.ids for one in take(lm, request(number))[0]] == together[number]
        assert take(lm, request(number, (2,)))[0][0].ids == together[number][2]
        assert [one.ids for one in take(lm, request(number, (2, 0)))[0]] == [together[number][2], together[number][0]]
    turned = take(lm, *map(request, reversed(range(5))))
    assert [[one.ids for one in row] for row in turned[::-1]] == together
    assert len({tuple(ids) for row in together for ids in row}) == 15
    assert [[one.ids for one in row] for row in take(lm, *map(request, range(5)), seed=8)] != together


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gpt_neox", "qwen2", "gemma"])
def test_one_copy_of_the_prompts_keys_gives_what_one_for_each_sample_gives(shape: str) -> None:
    lm = often_ending(shape)
    assert lm.decodes_shared(11 + LENGTH)
    shared = take(lm, *map(request, range(5)))
    lm.model.set_attn_implementation("sdpa")
    assert not lm.decodes_shared(11 + LENGTH)
    for ours, theirs in zip(shared, take(lm, *map(request, range(5))), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.ids == other.ids
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def same(some: list[list[Sampled]], others: list[list[Sampled]]) -> bool:
    return [[one.ids for one in row] for row in some] == [[one.ids for one in row] for row in others] and all(
        one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        for row, other_row in zip(some, others, strict=True)
        for one, other in zip(row, other_row, strict=True)
    )


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gpt_neox", "qwen2", "gemma", "mistral_window"])
def test_tensors_of_fixed_shape_give_the_same(shape: str) -> None:
    lm = often_ending(shape)
    plain = take(lm, *map(request, range(5)))
    places: list[int] = []
    lm.model.get_input_embeddings().register_forward_hook(lambda module, args, output: places.append(args[0].shape[0]))
    with torch.compiler.set_stance("force_eager"):
        assert same(take(lm, *map(request, range(5)), compiled=True), plain)
    if shape != "mistral_window":  # whose window needs places that move
        assert sorted(set(places[1:]), reverse=True) == [16, 8, 4, 2, 1][: len(set(places[1:]))]
        assert places[1:] == sorted(places[1:], reverse=True)
        assert places[-1] < 16


@pytest.mark.process  # the compiler is one
def test_compiled_steps_give_the_same() -> None:
    lm = often_ending()
    assert same(take(lm, *map(request, range(5)), compiled=True), take(lm, *map(request, range(5))))
    for parameter in lm.model.parameters():  # weights that have learned since are read, not the ones that were compiled
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    assert same(take(lm, *map(request, range(5)), compiled=True), take(lm, *map(request, range(5))))


def test_a_window_that_would_hide_the_prompt_is_respected() -> None:
    wide = wrap_language_model(tiny_model("mistral", sliding_window=15), tiny_tokenizer(), "chat")
    assert wide.decodes_shared(15)
    assert not wide.decodes_shared(16)
    ids = torch.tensor([PROMPTS[1]])  # eleven tokens: the window moves on while it decodes
    theirs = wide.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=LENGTH)
    ((one,),) = take(wide, request(1, (0,)), temperature=0.0)
    assert one.ids == theirs[0, ids.shape[1] :].tolist()


def test_prompts_are_read_once_and_finished_rows_leave() -> None:
    lm = often_ending()
    read: list[int] = []
    lm.model.get_input_embeddings().register_forward_hook(lambda module, args, output: read.append(args[0].numel()))
    samples = take(lm, *map(request, range(5)))
    lengths = [len(one.ids) for row in samples for one in row]
    assert min(lengths) < LENGTH
    # Each prompt once (padded to the longest), and each token but a sample's last goes through the model.
    assert read[0] == 5 * 11
    assert sum(read[1:]) == sum(length - 1 for length in lengths)


def test_it_stops_at_any_end_id_and_there_only() -> None:
    lm = often_ending()
    for row in take(lm, *map(request, range(5))):
        for one in row:
            assert not any(token in lm.conversation.eos_ids for token in one.ids[:-1])
            assert (one.finish == "stop") == (one.ids[-1] in lm.conversation.eos_ids)
            assert one.finish == "stop" or len(one.ids) == LENGTH
            assert len(one.logprobs) == len(one.ids)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gpt_neox", "qwen2", "mistral_window", "gemma2"])
def test_greedy_is_what_generate_gives(shape: str) -> None:
    lm = often_ending(shape)
    ours = take(lm, *[request(number, (0,)) for number in range(5)], temperature=0.0)
    for number, (one,) in enumerate(ours):
        ids = torch.tensor([PROMPTS[number]])
        theirs = lm.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=LENGTH)
        assert one.ids == theirs[0, ids.shape[1] :].tolist()


def test_a_low_temperature_is_nearly_greedy() -> None:
    lm = tiny_language_model()
    greedy = [[one.ids for one in row] for row in take(lm, *map(request, range(5)), temperature=0.0)]
    assert [[one.ids for one in row] for row in take(lm, *map(request, range(5)), temperature=1e-3)] == greedy
    assert all(row[0] == row[1] == row[2] for row in greedy)


def test_draws_have_the_frequencies_of_the_softmax() -> None:
    logprobs_V = torch.tensor([0.5, -1.0, 2.0, -torch.inf, 0.0, 1.0, -3.0]).log_softmax(-1)
    count = 20_000
    drawn, logprobs = draw_tokens(logprobs_V.expand(count, -1), uniforms(seed=3, key="a prompt", number=0, count=count))
    assert torch.allclose(logprobs, logprobs_V[drawn], atol=1e-6)
    observed = torch.bincount(drawn, minlength=7)
    possible = logprobs_V.isfinite()
    assert observed[~possible].sum() == 0
    expected = logprobs_V.exp()[possible].double() * count
    assert chisquare(observed[possible].numpy(), (expected / expected.sum() * count).numpy()).pvalue > 0.001
    # The test can fail: the same draws do not fit a distribution a little flatter.
    flatter = (logprobs_V[possible] / 1.1).softmax(-1).double() * count
    assert chisquare(observed[possible].numpy(), (flatter / flatter.sum() * count).numpy()).pvalue < 0.001


def test_the_ends_of_the_unit_interval_are_tokens_that_can_be_drawn() -> None:
    logprobs_NV = torch.tensor([[-torch.inf, 0.3, 0.4, -torch.inf]]).log_softmax(-1).expand(3, -1)
    assert draw_tokens(logprobs_NV, torch.tensor([0.0, 0.999, 1 - 2**-24]))[0].tolist() == [1, 2, 2]


@pytest.mark.parametrize("size", [600, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_a_large_vocabulary_is_drawn_as_its_whole_cumulative_distribution_says(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    logits_NV = 3 * torch.randn(70, size, generator=generator)
    logits_NV[:, -5:] = -torch.inf
    chances_N = torch.rand(70, generator=generator)
    chances_N[:2] = torch.tensor([0.0, 1 - 2**-24])
    for temperature in (1.0, 0.7):
        logprobs_NV = (logits_NV.double() / temperature).log_softmax(-1)
        cumulative_NV = logprobs_NV.exp().cumsum(-1)
        tokens_N, logprobs_N = draw_tokens(logits_NV, chances_N, temperature)
        upto_N = cumulative_NV.gather(-1, tokens_N.unsqueeze(-1)).squeeze(-1)
        own_N = logprobs_NV.gather(-1, tokens_N.unsqueeze(-1)).squeeze(-1)
        # The uniform lies within the token's own share of the unit interval, up to the rounding of single precision.
        assert bool((chances_N <= upto_N + 1e-6).all())
        assert bool((chances_N >= upto_N - own_N.exp() - 1e-6).all())
        assert bool(own_N.isfinite().all())
        assert torch.allclose(logprobs_N.double(), own_N, atol=1e-5)


def test_rows_and_batches_draw_the_same_tokens() -> None:
    logits_NV, chances_N = torch.randn(40, 2000), torch.rand(40)
    whole, _ = draw_tokens(logits_NV, chances_N)
    assert [int(draw_tokens(logits_NV[n : n + 1], chances_N[n : n + 1])[0]) for n in range(40)] == whole.tolist()


def test_streams_belong_to_seed_prompt_and_sample() -> None:
    stream = uniforms(1, "a", 2, 8)
    assert torch.equal(stream, uniforms(1, "a", 2, 8))
    assert torch.equal(stream[:5], uniforms(1, "a", 2, 5))
    others = [uniforms(2, "a", 2, 8), uniforms(1, "b", 2, 8), uniforms(1, "a", 3, 8)]
    assert not any(torch.equal(stream, other) for other in others)
    assert bool(((stream >= 0) & (stream < 1)).all())
