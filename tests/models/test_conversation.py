import functools
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from aligndistill.errors import DataError
from aligndistill.models.conversation import Conversation, Layout
from aligndistill.models.from_scratch import train_tokenizer
from aligndistill.models.load import wrap_language_model
from aligndistill.records import Message
from tests.tiny_models import TEXTS, tiny_model, tiny_tokenizer, user

LLAMA2_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }} {{ eos_token }}"
    "{% else %}{{ bos_token }}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)
IM_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@functools.cache
def sentencepiece_like() -> Any:
    """As Llama 2's: a space is put in front of every text, spaces are ▁, unknown characters are bytes, a bos is added."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False, max_token_length=6)
    tokenizer.train_from_iterator(TEXTS, trainer)
    # Byte tokens are ordinary ones; training only needed them in the vocabulary.
    state = tokenizer.to_str().replace('"special":true', '"special":false')
    parsed = json.loads(state)
    parsed["added_tokens"] = [{**token, "special": True} for token in parsed["added_tokens"] if token["id"] < 3]
    parsed["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(parsed)),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=LLAMA2_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def tokenizer_of(kind: str) -> Any:
    return tiny_tokenizer() if kind == "bytes" else sentencepiece_like()


def fresh_tokenizer() -> Any:
    """One that a test may change."""
    return train_tokenizer(TEXTS, 320, 64)


# ----------------------------------------------------------------------------------------------------------- layouts


def test_chat_is_the_template() -> None:
    conversation = Conversation(tiny_tokenizer(), "chat")
    turns = (Message(role="system", content="Be kind."), *user("Hi"))
    assert tiny_tokenizer().decode(conversation.prompt_ids(turns)) == "<|system|>Be kind.<|user|>Hi<|assistant|>"
    rendered = tiny_tokenizer().apply_chat_template(
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No."}], tokenize=True, return_dict=False
    )
    assert conversation.prompt_ids(user("Hi")) + conversation.response_ids("No.") == rendered


def test_transcript_is_human_and_assistant() -> None:
    conversation = Conversation(tiny_tokenizer(), "transcript")
    turns = (*user("Hi"), Message(role="assistant", content="Yes?"), *user("Bye"))
    assert conversation.prompt_text(turns) == "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Bye\n\nAssistant:"
    whole = conversation.prompt_ids(turns) + conversation.response_ids("Bye.")
    assert tiny_tokenizer().decode(whole) == conversation.prompt_text(turns) + " Bye.<|end|>"


def test_a_transcript_ends_at_the_next_human_turn() -> None:
    conversation = Conversation(tiny_tokenizer(), "transcript")
    ids = tiny_tokenizer().encode(" Yes.\n\nHuman: and then?")
    assert conversation.response_text([], ids) == "Yes."
    assert conversation.stops_inside(" Yes.\n\nHuman: and then?")
    assert not conversation.stops_inside(" Yes, Human: and then?")
    assert not Conversation(tiny_tokenizer(), "chat").stops_inside("Yes.\n\nHuman: and then?")


def test_plain_keeps_every_character() -> None:
    conversation = Conversation(tiny_tokenizer(), "plain")
    assert tiny_tokenizer().decode(conversation.prompt_ids(user("Once"))) == "Once"
    assert tiny_tokenizer().decode(conversation.response_ids(" upon a time", finished=False)) == " upon a time"
    assert conversation.response_text([], conversation.response_ids(" upon \n")) == " upon \n"


@pytest.mark.parametrize("layout", ["chat", "transcript", "plain"])
def test_prompt_and_response_are_tokenised_apart(layout: Layout) -> None:
    conversation = Conversation(tiny_tokenizer(), layout)
    messages = user("blue bl")
    alone = conversation.prompt_ids(messages)
    for text in ("ue", "blue", " blue"):
        # "bl" + "ue" would merge into one token; the prompt's ids stay what they are when sampling begins.
        assert tiny_tokenizer().encode("blue") != tiny_tokenizer().encode("bl") + tiny_tokenizer().encode("ue")
        joined = alone + conversation.response_ids(text)
        assert joined[: len(alone)] == conversation.prompt_ids(messages)


def test_a_bos_is_added_once_where_the_tokenizer_adds_one() -> None:
    tokenizer = sentencepiece_like()
    for layout in ("transcript", "plain", "chat"):
        conversation = Conversation(tokenizer, layout)  # type: ignore[arg-type]
        assert conversation.prompt_ids(user("Hi")).count(tokenizer.bos_token_id) == 1
        assert conversation.prompt_ids(user("Hi"))[0] == tokenizer.bos_token_id
        assert tokenizer.bos_token_id not in conversation.response_ids("Hi")


# ------------------------------------------------------------------------------------------------------- special ids


def test_the_end_of_turn_is_the_templates_and_every_end_id_ends() -> None:
    tokenizer = fresh_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = IM_TEMPLATE
    im_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    chat = Conversation(tokenizer, "chat", frozenset({3, 7}))
    assert im_end != tokenizer.eos_token_id
    assert chat.end_of_turn == im_end
    assert chat.response_ids("No.")[-1] == im_end
    assert chat.eos_ids == {3, 7, im_end, tokenizer.eos_token_id}
    assert Conversation(tokenizer, "plain", frozenset({3})).end_of_turn == tokenizer.eos_token_id
    assert chat.response_text([], [*chat.response_ids("No."), 7]) == "No."


def test_an_end_id_that_only_the_generation_config_names() -> None:
    model = tiny_model("llama")
    model.generation_config.eos_token_id = [1, 9, 11]
    assert wrap_language_model(model, tiny_tokenizer(), "chat").conversation.eos_ids == {1, 9, 11}
    model.generation_config.eos_token_id = 9
    assert wrap_language_model(model, tiny_tokenizer(), "chat").conversation.eos_ids == {1, 9}
    tokenizer = fresh_tokenizer()
    tokenizer.eos_token = None
    assert Conversation(tokenizer, "plain", frozenset({11, 9})).end_of_turn == 9


@pytest.mark.parametrize("padding", ["its own", "eos", "none"])
def test_padding_is_never_an_end(padding: str) -> None:
    tokenizer = fresh_tokenizer()
    tokenizer.pad_token = {"its own": "<|pad|>", "eos": "<|end|>", "none": None}[padding]
    conversation = Conversation(tokenizer, "chat", frozenset({0}) if padding == "none" else frozenset())
    assert conversation.pad_id not in conversation.eos_ids
    assert 0 <= conversation.pad_id < len(tokenizer)
    if padding == "its own":
        assert conversation.pad_id == tokenizer.pad_token_id


def test_an_unfinished_answer_has_no_end_and_an_empty_one_has_nothing_else() -> None:
    conversation = Conversation(tiny_tokenizer(), "chat")
    end = conversation.end_of_turn
    assert conversation.response_ids("No.", finished=True) == [*conversation.response_ids("No.", finished=False), end]
    assert end not in conversation.response_ids("No.", finished=False)
    assert conversation.response_ids("", finished=True) == [end]
    assert conversation.response_ids("", finished=False) == [end]  # a row without any token could not be scored


# -------------------------------------------------------------------------------------------------------- round trip

letters = st.text(st.sampled_from("aeblu \n.,?'▁2é漢🙂"), max_size=20)
anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0<▁"), max_size=20)


@settings(max_examples=150, deadline=None)
@given(text=letters | anything, kind=st.sampled_from(["bytes", "pieces"]), layout=st.sampled_from(["chat", "transcript", "plain"]))
def test_text_survives_ids(text: str, kind: str, layout: Layout) -> None:
    text = text.replace("▁", "_")  # a SentencePiece tokenizer cannot tell ▁ from a space
    conversation = Conversation(tokenizer_of(kind), layout)
    prompt = conversation.prompt_ids(user("What is the capital of France?"))
    ids = conversation.response_ids(text)
    back = conversation.response_text(prompt, ids)
    assert back == (text if layout == "plain" else text.strip())
    # What was sampled is what is trained on later: text without loose ends gives its ids again.
    if text == back:
        assert conversation.response_ids(back) == ids


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_the_seam_is_written_as_the_template_writes_it(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    conversation = Conversation(tokenizer, "chat")
    prompt = conversation.prompt_ids(user("Hi"))
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Paris blue?"}]
    whole = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    ours = (prompt + conversation.response_ids("Paris blue?", finished=False))[:-1]  # the last may have merged with what follows
    assert len(ours) > len(prompt)
    assert whole[: len(ours)] == ours


# ------------------------------------------------------------------------------------------------------------ errors


def test_chat_without_a_template_is_refused() -> None:
    tokenizer = fresh_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(DataError, match=r"no chat template.*layout: transcript"):
        Conversation(tokenizer, "chat")
    Conversation(tokenizer, "plain")


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = fresh_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="no end-of-sequence token"):
        Conversation(tokenizer, "plain")


def test_ids_are_plain_integers() -> None:
    conversation = Conversation(tiny_tokenizer(), "chat")
    assert torch.tensor([conversation.prompt_ids(user("Hi")) + conversation.response_ids("No.")]).dtype == torch.long
