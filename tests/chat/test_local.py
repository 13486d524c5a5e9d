import math

import pytest
import torch

from aligndistill.chat.local import LocalChat
from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.errors import DataError
from aligndistill.models.groups import TokenGroup, collate
from aligndistill.models.load import wrap_language_model
from aligndistill.models.logprobs import token_logprobs
from aligndistill.records import Message
from tests.tiny_models import QUESTIONS, tiny_language_model, tiny_model, tiny_tokenizer, user

SAMPLING = SamplingParams(temperature=1.0, max_new_tokens=10, seed=3)


def answers(
    chat: LocalChat, requests: list[Request], sampling: SamplingParams = SAMPLING
) -> dict[tuple[int, int], tuple[str, str]]:
    found = [(one.request, one.sample, one.reply) for one in chat.answer(requests, sampling)]
    assert len(found) == len({one[:2] for one in found})
    return {(request, number): (reply.text, reply.finish) for request, number, reply in found}


def test_every_sample_comes_once_and_batching_changes_none() -> None:
    requests = [Request(user(question), (0, 1, 2) if n % 2 else (1,)) for n, question in enumerate(QUESTIONS)]
    whole = answers(LocalChat(tiny_language_model(), "tiny", 8), requests)
    assert set(whole) == {(n, k) for n, request in enumerate(requests) for k in request.samples}
    assert answers(LocalChat(tiny_language_model(), "tiny", 3), requests) == whole
    # Asked later, alone, and for one sample only, it is the same answer: so a run can be resumed.
    alone = answers(LocalChat(tiny_language_model(), "tiny", 8), [Request(user(QUESTIONS[1]), (2,))])
    assert alone[0, 2] == whole[1, 2]
    assert len({text for text, _ in whole.values()}) > len(QUESTIONS)


def test_usage_and_finish_are_what_was_computed() -> None:
    model = tiny_model()
    model.generation_config.eos_token_id = [1, *range(200, 230)]
    lm = wrap_language_model(model, tiny_tokenizer(), "chat")
    replies = [one.reply for one in LocalChat(lm, "tiny", 8).answer([Request(user("No?"), tuple(range(20)))], SAMPLING)]
    prompt = len(lm.conversation.prompt_ids(user("No?")))
    assert {reply.finish for reply in replies} == {"stop", "length"}
    for reply in replies:
        assert reply.usage.prompt_tokens == prompt
        assert reply.usage.calls == 1
        assert (reply.usage.completion_tokens == 10) or reply.finish == "stop"
        assert not any(token in reply.text for token in ("<|end|>", "<|pad|>"))


def test_a_transcript_stops_at_the_next_human_turn() -> None:
    lm = wrap_language_model(tiny_model(), tiny_tokenizer(), "transcript")
    line = tiny_tokenizer().encode(" Yes.\n\nHuman: more")
    batch = collate([TokenGroup(lm.conversation.prompt_ids(user("Hi")), [line])], 0, share=False)
    optimizer = torch.optim.Adam(lm.model.parameters(), lr=1e-2)
    for _ in range(100):  # until it writes that line and nothing else
        optimizer.zero_grad()
        (-token_logprobs(lm.model, batch, share=False).mean()).backward()
        optimizer.step()
    chat = LocalChat(lm, "tiny", 8)
    (whole,) = chat.answer([Request(user("Hi"))], SamplingParams(temperature=0.0, max_new_tokens=len(line)))
    assert (whole.reply.text, whole.reply.finish) == ("Yes.", "stop")
    (cut,) = chat.answer([Request(user("Hi"))], SamplingParams(temperature=0.0, max_new_tokens=4))
    assert (cut.reply.text, cut.reply.finish) == (tiny_tokenizer().decode(line[:4]).strip(), "length")


def first_word_by_hand(lm: object, messages: tuple[Message, ...], label: list[int]) -> float:
    """P(the answer begins with these tokens), by the model's own forward pass."""
    prompt = lm.conversation.prompt_ids(messages)  # type: ignore[attr-defined]
    with torch.no_grad():
        p_TV = lm.model(input_ids=torch.tensor([prompt + label])).logits[0].double().softmax(-1)  # type: ignore[attr-defined]
    return math.prod(p_TV[len(prompt) - 1 + t, token].item() for t, token in enumerate(label))


@pytest.mark.parametrize("shape", ["llama", "mistral_window"])
def test_labels_have_their_exact_probability_and_what_begins_alike_is_taken_apart(shape: str) -> None:
    lm = tiny_language_model(shape)
    labels = ["1", "10", "10x", "A", "blue"]
    ids = [tiny_tokenizer().encode(label) for label in labels]
    assert ids[1][:1] == ids[0]
    assert ids[2][:2] == ids[1]
    conversations = [user(question) for question in QUESTIONS[:3]]
    found = {one.request: one.logprobs for one in LocalChat(lm, "tiny", 2).label_logprobs(conversations, labels)}
    assert set(found) == {0, 1, 2}
    for n, messages in enumerate(conversations):
        one, ten, tenx, a, blue = (first_word_by_hand(lm, messages, label) for label in ids)
        logprobs = found[n]
        assert logprobs is not None
        assert [math.exp(value) for value in logprobs] == pytest.approx([one - ten, ten - tenx, tenx, a, blue], rel=1e-3)


def test_what_does_not_fit_is_an_error_before_it_is_computed() -> None:
    chat = LocalChat(tiny_language_model(), "tiny", 8)
    messages = user("blue " * 80)
    assert chat.fits(user("No?"), 10)
    assert not chat.fits(messages, 10)
    with pytest.raises(DataError, match=r"exceed the 64 positions of tiny"):
        list(chat.answer([Request(user("No?")), Request(messages)], SAMPLING))
    room = 64 - len(tiny_language_model().conversation.prompt_ids(user("No?")))
    assert chat.fits(user("No?"), room)
    assert not chat.fits(user("No?"), room + 1)
    assert len(list(chat.answer([Request(user("No?"))], SamplingParams(temperature=1.0, max_new_tokens=room)))) == 1


def test_nothing_asked_is_nothing_answered() -> None:
    assert list(LocalChat(tiny_language_model(), "tiny", 8).answer([], SAMPLING)) == []
    assert list(LocalChat(tiny_language_model(), "tiny", 8).label_logprobs([], ["A"])) == []
