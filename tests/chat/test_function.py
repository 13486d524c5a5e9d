from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.function import FunctionChat
from aligndistill.chat.protocol import LabelLogprobs, Request, SamplingParams
from aligndistill.config.models import FunctionModel
from aligndistill.errors import ConfigError, JudgeError
from aligndistill.records import Message, Usage

TURNS = (Message(role="system", content="be brief"), Message(role="user", content="why not now"))
CODE = "def speak(messages, sample, seed):\n    return {}\n"
Opened = Callable[[str], FunctionChat]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Opened:
    """A chat model that returns the value of an expression, in a module of its own for each test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = f"speaker_{abs(hash(request.node.nodeid))}"

    def open_(value: str) -> FunctionChat:
        Path(f"{module}.py").write_text(CODE.format(value))
        return FunctionChat(FunctionModel(kind="function", function=f"{module}:speak"))

    return open_


def test_the_function_gets_plain_messages_the_sample_and_the_seed(opened: Opened) -> None:
    chat = opened("f'{messages} {sample} {seed}'")
    answers = list(chat.answer([Request(TURNS, (0, 3))], SamplingParams(1.0, max_new_tokens=99, seed=7)))
    messages = "[{'role': 'system', 'content': 'be brief'}, {'role': 'user', 'content': 'why not now'}]"
    assert [(one.sample, one.reply.text, one.reply.finish) for one in answers] == [
        (0, f"{messages} 0 7", "stop"),
        (3, f"{messages} 3 7", "stop"),
    ]


def test_words_count_as_tokens_and_a_longer_answer_is_cut(opened: Opened) -> None:
    (answered,) = opened("'one two three'").answer([Request(TURNS)], SamplingParams(1.0, max_new_tokens=2))
    assert (answered.reply.text, answered.reply.finish) == ("one two", "length")
    assert answered.reply.usage == Usage(calls=1, prompt_tokens=5, completion_tokens=2)


def test_no_probabilities_are_known_so_judges_read_its_text(opened: Opened) -> None:
    assert list(opened("'A'").label_logprobs([TURNS], ("A", "B"))) == [LabelLogprobs(0, None, Usage())]


@pytest.mark.parametrize(
    ("value", "reason"),
    [("1 / 0", "raised ZeroDivisionError: division by zero"), ("None", "returned None. It must return a text.")],
)
def test_a_function_that_fails_is_named_with_what_it_was_asked(opened: Opened, value: str, reason: str) -> None:
    with pytest.raises(JudgeError, match=rf"the model function speaker_\d+:speak, on the turn 'why not now', {reason}"):
        list(opened(value).answer([Request(TURNS)], SamplingParams(1.0, max_new_tokens=2)))


def test_another_code_is_another_model_to_caches(opened: Opened) -> None:
    identities: list[Any] = [opened("'a'").identity, opened("'b'").identity, opened("'a'").identity]
    assert identities[0] == identities[2] != identities[1]


def test_a_function_that_does_not_exist_is_an_error_of_the_config() -> None:
    with pytest.raises(ConfigError, match="cannot import 'no_speaker:speak': there is no module 'no_speaker'"):
        FunctionChat(FunctionModel(kind="function", function="no_speaker:speak"))
