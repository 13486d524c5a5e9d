import pytest
import torch

from aligndistill.models import logprobs
from aligndistill.models.grouped_model import batches_by_length
from aligndistill.models.groups import TokenGroup
from aligndistill.models.scoring import kl_nats
from aligndistill.models.tokenise import Limits, PromptWithResponses, tokenise
from tests.tiny_models import random_groups, tiny_language_model, user

GROUPS = random_groups([(7, [4, 6, 1]), (3, [5, 2]), (9, [8])], seed=2)


def kl_by_hand(policy: torch.nn.Module, reference: torch.nn.Module, group: TokenGroup, response: list[int]) -> float:
    """Two plain loops: over positions, over the vocabulary."""
    ids = torch.tensor([group.prompt + response])
    with torch.no_grad():
        p_TV, q_TV = (model(input_ids=ids).logits[0].double().softmax(-1) for model in (policy, reference))
    total = 0.0
    for position in range(len(group.prompt) - 1, len(group.prompt) + len(response) - 1):
        for p, q in zip(p_TV[position].tolist(), q_TV[position].tolist(), strict=True):
            total += p * (torch.log(torch.tensor(p)) - torch.log(torch.tensor(q))).item()
    return total


@pytest.mark.parametrize("chunks", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("shape", ["llama", "gpt2", "mistral_window", "gemma2"])
def test_kl_is_a_double_sum(shape: str, batch_size: int, chunks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of models that go through their own forward pass: `gemma2` caps its logits, `mistral_window` cannot share prompts."""
    if chunks:
        monkeypatch.setattr(logprobs, "_chunk_size", lambda head: 4)
    policy, reference = tiny_language_model(shape, seed=0), tiny_language_model(shape, seed=1)
    assert policy.shares_prompt == (shape in ("llama", "gpt2"))
    found = kl_nats(policy, reference, GROUPS, batch_size)
    assert [len(row) for row in found] == [3, 2, 1]
    for group, row in zip(GROUPS, found, strict=True):
        for response, kl in zip(group.responses, row, strict=True):
            assert kl == pytest.approx(kl_by_hand(policy.model, reference.model, group, response), rel=1e-4)
            assert kl > 0


def test_kl_of_a_model_with_itself_is_nothing() -> None:
    policy = tiny_language_model(seed=0)
    assert kl_nats(policy, tiny_language_model(seed=0), GROUPS, 2) == [[0.0] * 3, [0.0] * 2, [0.0]]


@pytest.mark.parametrize("shape", ["llama", "gemma2"])
def test_kl_never_holds_the_logits_of_a_whole_batch(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head sees the 26 positions that predict the answers' tokens, at most 4 at a time or one answer of 8 and its end."""
    monkeypatch.setattr(logprobs, "_chunk_size", lambda head: 4)
    policy, reference = tiny_language_model(shape, seed=0), tiny_language_model(shape, seed=1)
    seen: list[int] = []
    for model in (policy.model, reference.model):
        model.get_output_embeddings().register_forward_hook(lambda head, inputs, output: seen.append(output.shape[:-1].numel()))
    kl_nats(policy, reference, GROUPS, 3)
    assert max(seen) == (4 if shape == "llama" else 9)
    assert sum(seen) == 2 * 26 + (0 if shape == "llama" else 2 * 6)  # each of 6 answers of `gemma2`: its last token, too


def test_kl_has_a_direction() -> None:
    one, other = tiny_language_model(seed=0), tiny_language_model(seed=1)
    assert kl_nats(one, other, GROUPS, 2) != kl_nats(other, one, GROUPS, 2)


def test_batches_are_of_similar_length_longest_first() -> None:
    assert batches_by_length([3, 9, 1, 9, 5], 2) == [[1, 3], [4, 0], [2]]
    assert batches_by_length([], 2) == []
    lengths = [4, 100, 50, 49, 25, 24]
    assert batches_by_length(lengths, 8) == [[1, 2, 3, 4, 5, 0]]
    assert batches_by_length(lengths, 8, shortest=0.5) == [[1, 2], [3, 4], [5], [0]]


# --------------------------------------------------------------------------------------------------------- tokenising


def exchange(question: str, *answers: str) -> PromptWithResponses:
    return PromptWithResponses(user(question), answers, ["stop"] * len(answers))


def test_limits_leave_out_long_prompts_and_cut_long_answers() -> None:
    conversation = tiny_language_model().conversation
    short, long = user("No."), user("What is the capital of France? " * 3)
    prompt = len(conversation.prompt_ids(short))
    answer = conversation.response_ids("blue blue blue blue")
    limits = Limits(prompt, len(answer) - 1, None)
    found = tokenise(conversation, [exchange(long[0].content, "No."), exchange("No.", "blue blue blue blue", "No.")], limits)
    assert (found.indices, found.too_long, found.responses_cut) == ([1], 1, 1)
    assert found.groups[0].prompt == conversation.prompt_ids(short)
    # Cut, as if its author had been stopped there: no end.
    assert found.groups[0].responses == [answer[:-1], conversation.response_ids("No.")]
    uncut = tokenise(conversation, [exchange("No.", "blue blue blue blue")], Limits(prompt, len(answer), None))
    assert uncut.groups[0].responses == [answer]
    assert uncut.responses_cut == 0


def test_both_together_stay_within_the_models_positions() -> None:
    conversation = tiny_language_model().conversation
    prompt = len(conversation.prompt_ids(user("No.")))
    for room in (2, 1):
        found = tokenise(conversation, [exchange("No.", "blue blue blue blue")], Limits(99, 99, prompt + room))
        assert [len(response) for group in found.groups for response in group.responses] == [room]
    assert tokenise(conversation, [exchange("No.", "blue")], Limits(99, 99, prompt)).too_long == 1


def test_an_answer_that_was_cut_gets_no_end_and_an_empty_one_stays_scorable() -> None:
    conversation = tiny_language_model().conversation
    end = conversation.end_of_turn
    found = tokenise(
        conversation, [PromptWithResponses(user("No."), ["blue", "blue", ""], ["stop", "length", "length"])], Limits(99, 99, 64)
    )
    finished, cut, empty = found.groups[0].responses
    assert finished == [*cut, end]
    assert empty == [end]
