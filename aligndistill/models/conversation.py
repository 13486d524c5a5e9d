"""Messages <-> token ids. Prompt and response are tokenised separately and joined as ids, so the boundary is fixed.

A finished response ends with the end-of-turn id; a truncated one has no end id. The text of messages and responses never becomes
control tokens: only the template writes those.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from aligndistill.errors import DataError
from aligndistill.models.chat_template import AnswerPlace, answer_place, before_user_turn, refused, thinks_by_switch
from aligndistill.models.folder import no_chat_template
from aligndistill.models.thought_markers import opened_at_end
from aligndistill.records import Message

Layout = Literal["chat", "transcript", "plain"]

TRANSCRIPT_ROLES = {"user": "Human", "assistant": "Assistant", "system": "System"}
TRANSCRIPT_STOP = "\n\nHuman:"


def text_of_prompt(layout: Layout, messages: Sequence[Message]) -> str:
    """A prompt as text, for the layouts that are text."""
    if layout == "plain":
        return "\n\n".join(message.content for message in messages)
    turns = [f"\n\n{TRANSCRIPT_ROLES[message.role]}: {message.content}" for message in messages]
    return "".join(turns) + "\n\nAssistant:"


@dataclass(frozen=True)
class Conversation:
    """How one tokenizer writes conversations.

    Attributes:
        tokenizer: a Hugging Face tokenizer; with `chat`, its template has the model's settings (`chat_template.fix_template`).
        layout: `chat` (the tokenizer's template), `transcript` (Human/Assistant turns) or `plain` (the response
            continues the prompt).
        generation_eos: end ids named by the model's generation config.
    """

    tokenizer: Any
    layout: Layout
    generation_eos: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.layout == "chat" and not self.tokenizer.chat_template:
            raise no_chat_template(self.tokenizer.name_or_path)
        if self.tokenizer.eos_token_id is None and not self.generation_eos:
            raise DataError(
                f"the tokenizer of '{self.tokenizer.name_or_path}' has no end-of-sequence token, "
                "so a model could not learn to stop. Set its eos_token."
            )

    # ------------------------------------------------------------------------------------------------------- to ids

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt up to the point where the answer begins.

        Raises:
            RefusedConversation: the template does not accept these turns.
        """
        if self.layout != "chat":
            return [*self._bos, *self._encode(self.prompt_text(messages))]
        turns = [message.model_dump() for message in messages]
        forged = any(self._control_tokens.search(message.content) for message in messages)
        try:
            ids = self.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=True, return_dict=False, sanitize_control_tokens=forged
            )
        except Exception as error:  # a template can raise any type
            raise refused(self.tokenizer, turns, error) from None
        return list(ids)

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The prompt as text, for the layouts that are text."""
        return text_of_prompt(self.layout, messages)

    @cached_property
    def user_turn_ids(self) -> list[int]:
        """What stands before the text of a first user turn: a model that continues it writes what a user may ask.

        Raises:
            DataError: the layout has no turns.
        """
        if self.layout == "plain":
            raise DataError("layout: plain has no turns, so nothing stands before a user's: use chat or transcript.")
        if self.layout == "transcript":
            return [*self._bos, *self._encode(f"\n\n{TRANSCRIPT_ROLES['user']}:")]
        before = before_user_turn(self.tokenizer, self.tokenizer.get_chat_template())
        return list(self.tokenizer(before, add_special_tokens=False).input_ids)

    def user_turn_text(self, ids: Sequence[int]) -> str:
        """The text of a user turn that a model wrote, up to the answer that it may have written as well."""
        text = self._decode([token for token in ids if token not in self.eos_ids])
        return text.split(f"\n\n{TRANSCRIPT_ROLES['assistant']}:")[0].split(TRANSCRIPT_STOP)[0].strip()

    def response_ids(self, text: str, finished: bool = True) -> list[int]:
        """The answer's ids, with the end-of-turn id if it is `finished` or empty: an answer has at least one token.

        Raises:
            DataError: the template's prompts do not end where its answers begin.
        """
        lead = self._lead
        # White space is tokenised together with the text, as the model writes it.
        ids = [*self.lead, *self._continuation(text)] if lead.strip() else self._continuation(lead + text)
        return [*ids, self.end_of_turn] if finished or not ids else ids

    @cached_property
    def lead(self) -> list[int]:
        """What the template writes between a prompt and the answer, for example an empty block of thoughts, as ids."""
        lead = self._lead
        return list(self.tokenizer(lead, add_special_tokens=False).input_ids) if lead.strip() else self._continuation(lead)

    @cached_property
    def opened_thoughts(self) -> str:
        """The opening marker of thoughts that prompts end with; empty if they end with none."""
        return opened_at_end(self._place.tail) if self.layout == "chat" else ""

    @property
    def thinks(self) -> bool:
        """Whether the model may think before it answers.

        That is, thinking is switched on, prompts open its thoughts, or they end before what precedes an answer.
        """
        if self.layout != "chat":
            return False
        switched_on = thinks_by_switch(self.tokenizer.get_chat_template())
        return switched_on or bool(self.opened_thoughts or self._place.lead.strip())

    # ------------------------------------------------------------------------------------------------------ to text

    def response_text(self, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> str:
        """The text of sampled ids; the inverse of `response_ids` for text that the tokenizer can encode."""
        ids = [token for token in response_ids if token not in self.eos_ids]
        if self._adds_prefix_space:
            # Such tokenizers drop the space before the first word: decode after the prompt's last token to keep it.
            anchor = list(prompt_ids[-1:])
            before = self._decode(anchor)
            text = self._decode([*anchor, *ids])[len(before) :]
        else:
            text = self._decode(ids)
        if self.layout == "plain":
            return text
        if self.layout == "transcript":
            text = text.split(TRANSCRIPT_STOP)[0]
        return text.strip()

    def marked_text(self, response_ids: Sequence[int]) -> str:
        """The text of sampled ids with control tokens such as `[THINK]` written out, and with thoughts opened as in the prompt."""
        ids = [token for token in response_ids if token not in self.eos_ids]
        return self.opened_thoughts + str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def without_control_tokens(self, marked: str) -> str:
        """A part of `marked_text` as `response_text` gives it."""
        special = sorted(self._special.values(), key=len, reverse=True)
        return re.sub("|".join(map(re.escape, special)) or "(?!)", "", marked).strip()

    def stops_inside(self, text: str) -> bool:
        """Whether a decoded response contains the start of the next human turn, which ends it like an end token."""
        return self.layout == "transcript" and TRANSCRIPT_STOP in text

    # --------------------------------------------------------------------------------------------------- special ids

    @cached_property
    def end_of_turn(self) -> int:
        """The id that ends an answer: the one that the chat template writes after an answer, else the tokenizer's eos."""
        if self.layout == "chat":
            # The id that the template writes after an assistant turn is the one that its model was trained to stop at.
            for token in self.tokenizer(self._place.end, add_special_tokens=False).input_ids:
                if token in self._special or token in self.generation_eos:
                    return int(token)
        if self.tokenizer.eos_token_id is not None:
            return int(self.tokenizer.eos_token_id)
        return min(self.generation_eos)

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Every id that ends an answer: the generation config's, the tokenizer's and the template's."""
        eos = self.tokenizer.eos_token_id
        return self.generation_eos | {self.end_of_turn} | ({int(eos)} if eos is not None else frozenset())

    @cached_property
    def pad_id(self) -> int:
        """A padding id that is not an end token. Masks are computed from lengths, never from this id."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.unk_token_id, *range(len(self.tokenizer))):
            if token is not None and token not in self.eos_ids:
                return int(token)
        raise AssertionError("the vocabulary has only end tokens")

    # ------------------------------------------------------------------------------------------------------ internals

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @cached_property
    def _bos(self) -> list[int]:
        bos = self.tokenizer.bos_token_id
        adds_bos = bos is not None and self.tokenizer("a").input_ids[:1] == [bos]
        return [bos] if adds_bos else []

    @cached_property
    def _adds_prefix_space(self) -> bool:
        """Whether the tokenizer adds a space before a text's first word (SentencePiece models such as Llama 2)."""
        first = self.tokenizer.convert_ids_to_tokens(self._encode("a"))[0]
        return str(first).startswith("▁")

    @cached_property
    def _special(self) -> dict[int, str]:
        """The special tokens, which decoding leaves out, by id."""
        named = zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=True)
        added = self.tokenizer.added_tokens_decoder.items()
        return {**dict(named), **{token: one.content for token, one in added if one.special}}

    @cached_property
    def _control_tokens(self) -> re.Pattern[str]:
        """What in a message would become a control token: special tokens, and added tokens that the template writes."""
        template = self.tokenizer.get_chat_template()
        added = [one.content for one in self.tokenizer.added_tokens_decoder.values()]
        written = [token for token in added if token in template and not token.isspace()]
        return re.compile("|".join(map(re.escape, {*self._special.values(), *written})) or "(?!)")

    @cached_property
    def _place(self) -> AnswerPlace:
        return answer_place(self.tokenizer, self.tokenizer.get_chat_template())

    @property
    def _lead(self) -> str:
        """The text between the end of the prompt and the answer's first character."""
        if self.layout != "chat":
            return " " if self.layout == "transcript" else ""
        if self._place.mismatch:
            raise DataError(self._place.mismatch)
        return self._place.lead

    def _continuation(self, text: str) -> list[int]:
        """The ids of text that continues other text."""
        if not self._adds_prefix_space or not text:
            return self._encode(text)
        if text.startswith(" ") and text != " ":  # the tokenizer adds no space to empty text
            return self._encode(text[1:])
        anchor = self._encode("\n")
        ids = self._encode("\n" + text)
        return ids[len(anchor) :] if ids[: len(anchor)] == anchor else self._encode(text)
