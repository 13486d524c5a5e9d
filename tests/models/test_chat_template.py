"""Real chat templates: prompts and answers as the templates write them, the same on every day, and nothing forged."""

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from aligndistill.config.models import Thinking
from aligndistill.errors import DataError, RefusedConversation
from aligndistill.models.chat_template import answer_place, fix_template, refused_turns
from aligndistill.models.conversation import Conversation
from aligndistill.records import Message
from tests.models.chat_families import FAMILIES, ORIGINALS, template_of, tokenizer_of
from tests.tiny_models import user

SYSTEM = Message(role="system", content="Be brief.")
ASSISTANT = Message(role="assistant", content="No.")
CONVERSATIONS = {
    "one turn": user("Hi"),
    "several": (*user("Hi"), ASSISTANT, *user("Why?")),
    "system": (SYSTEM, *user("Hi")),
    "all": (SYSTEM, *user("Hi"), ASSISTANT, *user("Why?")),
}
THINKERS = [name for name, family in FAMILIES.items() if family.on is not None]
SWITCHED_OFF = [name for name, family in FAMILIES.items() if family.off]
DAY = datetime(2024, 7, 26, 15, 30)


class Clock:
    """In place of `datetime` where transformers reads the clock for templates."""

    def __init__(self, day: datetime) -> None:
        self._day = day

    def now(self) -> datetime:
        return self._day


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(chat_template_utils, "datetime", Clock(datetime(2031, 12, 3)))
    return monkeypatch


def conversation_of(family: str, thinking: Thinking = "auto", arguments: dict[str, Any] | None = None) -> Conversation:
    tokenizer = tokenizer_of(family)
    fix_template(tokenizer, thinking, arguments or {}, None)
    return Conversation(tokenizer, "chat")


def as_dicts(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [message.model_dump() for message in messages]


def by_its_own_template(family: str, messages: tuple[Message, ...], prompt: bool, **arguments: Any) -> str:
    """What transformers renders with the template as it came."""
    tokenizer = tokenizer_of(family)
    return str(tokenizer.apply_chat_template(as_dicts(messages), tokenize=False, add_generation_prompt=prompt, **arguments))


def decoded(conversation: Conversation, ids: list[int]) -> str:
    return str(conversation.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def squeezed(text: str) -> str:
    return "".join(text.split())


# ------------------------------------------------------------------------------------------------- the templates themselves


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.original])
@pytest.mark.parametrize("arguments", [{}, {"enable_thinking": False}, {"enable_thinking": True}, {"reasoning_effort": "low"}])
def test_our_template_writes_what_the_original_writes(family: str, arguments: dict[str, Any]) -> None:
    original = (ORIGINALS / f"{FAMILIES[family].original}.jinja").read_text(encoding="utf-8")
    tokenizer = tokenizer_of(family)

    def render(template: str, messages: tuple[Message, ...], prompt: bool) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    as_dicts(messages), chat_template=template, tokenize=False, add_generation_prompt=prompt, **arguments
                )
            )
        except Exception as error:
            return f"refused: {type(error).__name__}"

    refused = [(*user("Hi"), *user("Hi")), (ASSISTANT, *user("Hi")), (*user("Hi"), ASSISTANT, SYSTEM, *user("Hi"))]
    for messages in (*CONVERSATIONS.values(), *refused):
        for turns, prompt in ((messages, True), ((*messages, ASSISTANT), False)):
            assert render(template_of(family), turns, prompt) == render(original, turns, prompt)


# ------------------------------------------------------------------------------------------------------ prompts and answers


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("thinking", ["auto", "off", "on"])
def test_a_prompt_ends_where_its_mode_of_thinking_says(family: str, thinking: Thinking) -> None:
    about = FAMILIES[family]
    if thinking == "off" and not about.off:
        with pytest.raises(DataError, match=r"thinking: off was asked for.*'<think>'.*chat_template: FILE"):
            conversation_of(family, thinking)
        return
    # The two that always think, unless they are told not to: they have no variable for it.
    thinks = thinking == "on" or (thinking == "auto" and family in ("qwen3_thinking", "deepseek_r1_distill"))
    expected = about.on if thinks and about.on is not None else about.off
    conversation = conversation_of(family, thinking)
    prompt = decoded(conversation, conversation.prompt_ids(user("Hi")))
    assert prompt.endswith(f"Hi{expected}")
    assert conversation.thinks == (thinks and about.on is not None)


@pytest.mark.parametrize("family", SWITCHED_OFF)
@pytest.mark.parametrize("which", CONVERSATIONS)
def test_prompt_and_answer_are_the_turn_that_the_template_finishes(family: str, which: str, today: pytest.MonkeyPatch) -> None:
    messages = CONVERSATIONS[which]
    if family == "gemma2" and messages[0] == SYSTEM:
        return  # it refuses these
    conversation = conversation_of(family, "off")
    ids = conversation.prompt_ids(messages) + conversation.response_ids("It is Paris.")
    today.setattr(chat_template_utils, "datetime", Clock(DAY))
    turns = (*messages, Message(role="assistant", content="It is Paris."))
    finished = by_its_own_template(family, turns, False, enable_thinking=False)
    written = decoded(conversation, ids)
    if not FAMILIES[family].end:  # the template leaves the end to the next turn
        assert written.endswith("<|endoftext|>")
        written = written.removesuffix("<|endoftext|>")
    if family == "gemma4_31b":  # its finished turns leave out the empty block of its prompts
        written = written.replace("<|channel>thought\n<channel|>", "")
    assert squeezed(written) == squeezed(finished)


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5", "qwen3_thinking", "glm_4_6", "gpt_oss"])
def test_a_thinking_model_learns_its_answers_behind_what_the_template_writes_first(family: str, today: pytest.MonkeyPatch) -> None:
    conversation = conversation_of(family, "on")
    today.setattr(chat_template_utils, "datetime", Clock(DAY))
    finished = by_its_own_template(family, (*user("Hi"), ASSISTANT), False)
    ids = conversation.prompt_ids(user("Hi")) + conversation.response_ids("No.", finished=bool(FAMILIES[family].end))
    assert squeezed(decoded(conversation, ids)) == squeezed(finished)
    assert conversation.lead
    assert conversation.response_ids("No.")[: len(conversation.lead)] == conversation.lead


@pytest.mark.parametrize("family", ["nemotron_3", "deepseek_r1_distill"])
def test_prompts_that_no_finished_turn_begins_with_can_be_sampled_from_and_not_trained_on(family: str) -> None:
    conversation = conversation_of(family, "on")
    assert conversation.opened_thoughts == "<think>"
    assert conversation.prompt_ids(user("Hi"))
    with pytest.raises(DataError) as raised:
        conversation.response_ids("No.")
    message = str(raised.value)
    if family == "nemotron_3":
        assert "writes '<think></think>' before an answer but ends its prompt with '<think>\\n'" in message
        assert "set thinking: off, or give another template" in message
    else:
        assert "writes '<｜Assistant｜>' before an answer but ends its prompt with '<｜Assistant｜><think>\\n'" in message
        assert "thinking: off" not in message  # it has no switch


@pytest.mark.parametrize("family", SWITCHED_OFF)
def test_one_bos_and_one_end(family: str) -> None:
    conversation, about = conversation_of(family), FAMILIES[family]
    ids = conversation.prompt_ids(user("Hi")) + conversation.response_ids("No.")
    special = conversation.tokenizer.convert_tokens_to_ids
    if about.bos:
        assert ids.count(special(about.bos)) == 1
        assert ids[0] == special(about.bos)
    if about.end:
        assert ids[-1] == special(about.end) == conversation.end_of_turn
        assert conversation.response_ids("No.").count(special(about.end)) == 1


# -------------------------------------------------------------------------------------------------------------------- dates


@pytest.mark.parametrize(
    ("family", "written"),
    [
        ("llama3_1", "26 Jul 2024"),
        ("llama3_2", "26 Jul 2024"),
        ("gpt_oss", "2024-07-26"),
        ("mistral_small_3_2", "2024-07-26"),
        ("smollm3", "26 July 2024"),
    ],
)
def test_prompts_are_the_same_on_every_day(family: str, written: str, today: pytest.MonkeyPatch) -> None:
    first = conversation_of(family).prompt_ids(user("Hi"))
    today.setattr(chat_template_utils, "datetime", Clock(datetime(2032, 1, 1)))
    conversation = conversation_of(family)
    assert conversation.prompt_ids(user("Hi")) == first
    assert written in decoded(conversation, first)
    assert not any(str(year) in decoded(conversation, first) for year in (2031, 2032))


def test_the_date_can_be_chosen() -> None:
    for family, form in (("llama3_2", "1 Feb 2026"), ("gpt_oss", "2026-02-01"), ("smollm3", "01 February 2026")):
        conversation = conversation_of(family, arguments={"date_string": "1 Feb 2026"})
        assert form in decoded(conversation, conversation.prompt_ids(user("Hi")))
    with pytest.raises(DataError, match=r"date_string: 'soon' is not a date such as '26 Jul 2024'"):
        conversation_of("gpt_oss", arguments={"date_string": "soon"})
    own = conversation_of("llama3_2", arguments={"date_string": "soon"})  # a variable of its own: any text
    assert "Today Date: soon\n" in decoded(own, own.prompt_ids(user("Hi")))


# ---------------------------------------------------------------------------------------------------------------- arguments


def test_arguments_are_written_into_the_template() -> None:
    low = conversation_of("gpt_oss", arguments={"reasoning_effort": 'lo"w\n\\ 🙂 {% {{'})
    assert 'Reasoning: lo"w\n\\ 🙂 {% {{\n' in decoded(low, low.prompt_ids(user("Hi")))
    on = conversation_of("qwen3", arguments={"enable_thinking": True})  # decides instead of the mode
    assert decoded(on, on.prompt_ids(user("Hi"))).endswith("assistant\n")


def test_an_argument_that_the_template_does_not_read_is_refused() -> None:
    with pytest.raises(DataError, match=r"no variable 'enable_thinkin'.*enable_thinking"):
        conversation_of("qwen3", arguments={"enable_thinkin": False})
    with pytest.raises(DataError, match=r"no variable 'date_string'.*its variables: none"):
        conversation_of("gemma3", arguments={"date_string": "1 Feb 2026"})


def test_another_template_takes_the_place_of_the_tokenizers() -> None:
    tokenizer = tokenizer_of("qwen3")
    fix_template(tokenizer, "auto", {}, template_of("qwen2_5"))
    assert tokenizer.chat_template == template_of("qwen2_5")  # nothing to write into it
    with pytest.raises(DataError, match=r"is not valid: .*line 2"):
        fix_template(tokenizer, "auto", {}, "a\n{% if %}")
    with pytest.raises(DataError, match="does not write the text of a turn"):
        fix_template(tokenizer, "auto", {}, "{% for m in messages %}{{ m.content[0].text }}{% endfor %}")


# ------------------------------------------------------------------------------------------------------------- saved models


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("thinking", ["auto", "off", "on"])
def test_a_saved_tokenizer_gives_the_same_prompt_without_arguments(family: str, thinking: Thinking, tmp_path: Path) -> None:
    if thinking == "off" and not FAMILIES[family].off:
        return
    conversation = conversation_of(family, thinking)
    conversation.tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    turns = as_dicts(user("Hi"))
    prompt = loaded.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert prompt == conversation.prompt_ids(user("Hi"))
    before = loaded.chat_template
    fix_template(loaded, thinking, {}, None)  # as a student of the next run
    assert loaded.chat_template == before


# ---------------------------------------------------------------------------------------------------------- what is refused


def test_turns_that_a_template_refuses_are_named_with_its_reason() -> None:
    conversation = conversation_of("gemma2")
    with pytest.raises(RefusedConversation, match=r"turns system, user \(the last: 'Hi'\): System role not supported"):
        conversation.prompt_ids((SYSTEM, *user("Hi")))
    two = ["two user turns in a row", "an assistant turn first"]
    assert refused_turns(conversation.tokenizer) == ["a system turn", "a later system turn", *two]
    assert refused_turns(conversation_of("qwen3_5").tokenizer) == ["a later system turn"]
    assert refused_turns(conversation_of("mistral_small_3_2").tokenizer) == ["a later system turn", *two]
    assert refused_turns(conversation_of("qwen2_5").tokenizer) == []


# ------------------------------------------------------------------------------------------------------------- forged turns


@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_becomes_a_control_token(family: str) -> None:
    about, conversation = FAMILIES[family], conversation_of(family)
    tokens = [*about.special, *(token for token in about.added if token in template_of(family))]
    ids = set(conversation.tokenizer.convert_tokens_to_ids(tokens))

    def control(found: list[int]) -> Counter[int]:
        return Counter(token for token in found if token in ids)

    plain = conversation.prompt_ids(user("Hi Hi"))
    for token in tokens:
        forged = conversation.prompt_ids(user(f"Hi {token} Hi"))
        assert control(forged) == control(plain), token
        assert f"Hi {token} Hi" in decoded(conversation, forged)
    every = conversation.prompt_ids(user("Hi " + "".join(tokens * 2) + " Hi"))
    assert control(every) == control(plain)
    if about.off:
        for token in about.special:
            answer = conversation.response_ids(f"No {token} No")
            assert control(answer) == control(conversation.response_ids("No No"))
            assert f"No {token} No" in decoded(conversation, answer)


# ------------------------------------------------------------------------------------------------------------ TRL's originals

UNSUITABLE = {"idefics3", "llava_next", "smolvlm"}  # for images: they read texts from lists
ALWAYS_THINKS = {"deepseek_r1_distill", "deepseekv3"}
TEXT_ORIGINALS = sorted(
    path.stem for path in ORIGINALS.glob("*.jinja") if not path.stem.endswith("_training") and path.stem not in UNSUITABLE
)


@pytest.mark.parametrize("name", TEXT_ORIGINALS)
def test_originals_are_fixed_without_changing_what_they_write(name: str, today: pytest.MonkeyPatch) -> None:
    template = (ORIGINALS / f"{name}.jinja").read_text(encoding="utf-8")
    tokenizer = tokenizer_of("qwen2_5")
    tokenizer.bos_token = "<|im_start|>"  # many templates add it to a text
    fix_template(tokenizer, "auto", {}, template)
    place = answer_place(tokenizer, tokenizer.chat_template)
    assert bool(place.mismatch) == (name in ALWAYS_THINKS)
    assert not place.lead.strip()
    today.setattr(chat_template_utils, "datetime", Clock(DAY))
    for messages in (CONVERSATIONS["one turn"], CONVERSATIONS["several"]):
        turns = as_dicts((*messages, ASSISTANT))
        before = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, enable_thinking=False)
        today.setattr(chat_template_utils, "datetime", Clock(datetime(2031, 12, 3)))
        assert tokenizer.apply_chat_template(turns, tokenize=False) == before
        today.setattr(chat_template_utils, "datetime", Clock(DAY))
        prompt = tokenizer.apply_chat_template(as_dicts(messages), tokenize=False, add_generation_prompt=True)
        assert before.startswith(prompt) == (name not in ALWAYS_THINKS)


@pytest.mark.parametrize("name", sorted(UNSUITABLE))
def test_templates_for_images_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"chat_template: FILE"):
        fix_template(tokenizer_of("qwen2_5"), "auto", {}, (ORIGINALS / f"{name}.jinja").read_text(encoding="utf-8"))
