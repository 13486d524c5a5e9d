import pytest

from aligndistill.chat.local import LocalChat
from aligndistill.chat.protocol import Request, SamplingParams
from aligndistill.commands.chat import speaker as module
from aligndistill.commands.chat.speaker import Params, Speaker, pieces
from aligndistill.errors import ConfigError, DataError
from aligndistill.models.conversation import Conversation
from aligndistill.models.load import LanguageModel, wrap_language_model
from aligndistill.records import Message
from tests.tiny_models import tiny_language_model, tiny_model, tiny_tokenizer

PARAMS = Params(temperature=1.0, max_new_tokens=24, seed=5)
QUESTIONS = ("What is the capital of France?", "No.", "Repeat the word blue four times.")


def asked(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def of_layout(layout: str) -> LanguageModel:
    return wrap_language_model(tiny_model(), tiny_tokenizer(), layout)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["chat", "transcript", "plain"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_pieces_are_the_answer_that_a_run_samples(layout: str, temperature: float) -> None:
    model = of_layout(layout)
    params = Params(temperature, 24, 5)
    sampling = SamplingParams(temperature, 24, seed=5)
    requests = [Request(asked(text)) for text in QUESTIONS]
    expected = {one.request: one.reply for one in LocalChat(model, "tiny", 3).answer(requests, sampling)}
    for number, text in enumerate(QUESTIONS):
        *before, last = pieces(model, asked(text), params)
        assert "".join(piece.text for piece in (*before, last)) == expected[number].text
        assert last.is_cut == (expected[number].finish == "length")
        assert not any(piece.is_cut for piece in before)


@pytest.mark.parametrize(("ended", "max_new_tokens", "is_cut"), [(True, 24, False), (False, 3, True)])
def test_an_answer_that_ends_by_itself_is_not_cut(
    ended: bool, max_new_tokens: int, is_cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker = Speaker("tiny", of_layout("chat"), is_cut=not is_cut)  # of the answer before
    conversation = speaker.language_model.conversation
    ids = conversation.tokenizer("It is", add_special_tokens=False).input_ids[:2]
    monkeypatch.setattr(module, "stream", lambda *_, **__: iter([*ids, *([conversation.end_of_turn] if ended else ids[:1])]))
    list(speaker.answer("No.", Params(1.0, max_new_tokens, 0)))
    assert speaker.is_cut == is_cut


def test_an_answer_comes_in_pieces() -> None:
    assert max(len(list(pieces(tiny_language_model(), asked(text), PARAMS))) for text in QUESTIONS) > 3


def writing(monkeypatch: pytest.MonkeyPatch, model: LanguageModel, text: str) -> list[str]:
    """The pieces of an answer that is this text."""
    ids = model.conversation.tokenizer(text, add_special_tokens=False).input_ids
    monkeypatch.setattr(module, "stream", lambda *_, **__: iter(ids))
    return [piece.text for piece in pieces(model, asked("No."), PARAMS)]


def test_the_next_human_turn_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = writing(monkeypatch, of_layout("transcript"), " It is\n\nHuge.\n\nHuman: And now?")
    assert "".join(found) == "It is\n\nHuge."
    assert not any("Human" in piece for piece in found)


def test_a_character_of_several_tokens_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = writing(monkeypatch, of_layout("chat"), "Paris 漢字 yes")
    assert "".join(found) == "Paris 漢字 yes"
    assert not any("\ufffd" in piece for piece in found)


def test_the_conversation_grows_with_each_turn() -> None:
    speaker = Speaker("tiny", tiny_language_model(shape="llama", max_position_embeddings=256), system="Be kind.")
    first = "".join(speaker.answer("No.", PARAMS))
    assert [message.content for message in speaker.messages] == ["Be kind.", "No.", first]
    second = "".join(speaker.answer("No.", PARAMS))
    assert [message.role for message in speaker.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert second == "".join(piece.text for piece in pieces(speaker.language_model, [*speaker.messages[:3], *asked("No.")], PARAMS))


def test_what_was_said_before_it_was_stopped_stays() -> None:
    speaker = Speaker("tiny", tiny_language_model())
    answer = speaker.answer(QUESTIONS[0], PARAMS)
    first = next(answer)
    answer.close()
    assert [message.content for message in speaker.turns] == [QUESTIONS[0], first]


def test_a_conversation_that_is_too_long_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"max_new_tokens=9999 more it exceeds the 64 positions.*Begin again with /reset"):
        list(pieces(tiny_language_model(), asked("No."), Params(1.0, 9999, 0)))


def test_params_are_set_by_name() -> None:
    assert PARAMS.changed("temperature=0 seed=7") == Params(0.0, 24, 7)
    assert str(PARAMS) == "temperature=1 max_new_tokens=24 seed=5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top_p=1", "there is no parameter 'top_p'. Give temperature=VALUE, max_new_tokens=VALUE, seed=VALUE"),
        ("temperature=-1", "temperature must be a number of at least 0"),
        ("temperature=nan", "temperature must be a number"),
        ("max_new_tokens=0", "max_new_tokens must be an integer of at least 1, not '0'"),
        ("seed=a", "seed must be an integer"),
        ("seed", "seed must be an integer of at least 0, not ''"),
    ],
)
def test_wrong_params_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        PARAMS.changed(text)
    assert message in str(error.value)


def test_thoughts_are_not_part_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = of_layout("chat")
    assert isinstance(model.conversation, Conversation)
    assert "".join(writing(monkeypatch, model, "<think>It may be Rome.</think>It is Paris.")) == "It is Paris."
