"""Messages <-> token ids. Prompt and response are tokenised separately and joined as ids, so the boundary is fixed.

A finished response ends with the end-of-turn id; a truncated one has no end id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from aligndistill.errors import DataError
from aligndistill.records import Message

Layout = Literal["chat", "transcript", "plain"]

TRANSCRIPT_ROLES = {"user": "Human", "assistant": "Assistant", "system": "System"}
TRANSCRIPT_STOP = "\n\nHuman:"


@dataclass(frozen=True)
class Conversation:
    """How one tokenizer writes conversations.

    Attributes:
        tokenizer: a Hugging Face tokenizer.
        layout: `chat` (the tokenizer's template), `transcript` (Human/Assistant turns) or `plain` (the response
            continues the prompt).
        generation_eos: end ids named by the model's generation config.
    """

    tokenizer: Any
    layout: Layout
    generation_eos: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.layout == "chat" and not self.tokenizer.chat_template:
            raise DataError(
                f"the tokenizer of '{self.tokenizer.name_or_path}' has no chat template, and layout is 'chat'. "
                "Set layout: transcript or layout: plain, or give the tokenizer a template."
            )
        if self.tokenizer.eos_token_id is None and not self.generation_eos:
            raise DataError(
                f"the tokenizer of '{self.tokenizer.name_or_path}' has no end-of-sequence token, "
                "so a model could not learn to stop. Set its eos_token."
            )

    # ------------------------------------------------------------------------------------------------------- to ids

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt up to the point where the answer begins."""
        if self.layout == "chat":
            turns = [message.model_dump() for message in messages]
            ids = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)
            return list(ids)
        return [*self._bos, *self._encode(self.prompt_text(messages))]

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The prompt as text, for the layouts that are text."""
        if self.layout == "plain":
            return "\n\n".join(message.content for message in messages)
        turns = [f"\n\n{TRANSCRIPT_ROLES[message.role]}: {message.content}" for message in messages]
        return "".join(turns) + "\n\nAssistant:"

    def response_ids(self, text: str, finished: bool = True) -> list[int]:
        """The answer's ids, with the end-of-turn id if it is `finished` or empty: an answer has at least one token."""
        ids = self._continuation(self._lead + text)
        return [*ids, self.end_of_turn] if finished or not ids else ids

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

    def stops_inside(self, text: str) -> bool:
        """Whether a decoded response contains the start of the next human turn, which ends it like an end token."""
        return self.layout == "transcript" and TRANSCRIPT_STOP in text

    # --------------------------------------------------------------------------------------------------- special ids

    @cached_property
    def end_of_turn(self) -> int:
        """The id that ends an answer: the one that the chat template writes after an answer, else the tokenizer's eos."""
        if self.layout == "chat":
            # The id that the template writes after an assistant turn is the one that its model was trained to stop at.
            marker = "aligndistill"
            turns = [{"role": "user", "content": marker}, {"role": "assistant", "content": marker}]
            rendered = self.tokenizer.apply_chat_template(turns, tokenize=False)
            tail = self.tokenizer(rendered[rendered.rindex(marker) + len(marker) :], add_special_tokens=False).input_ids
            special = set(self.tokenizer.all_special_ids) | self.generation_eos
            for token in tail:
                if token in special:
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
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

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
    def _lead(self) -> str:
        """The text between the end of the prompt and the answer's first character."""
        if self.layout != "chat":
            return " " if self.layout == "transcript" else ""
        marker = "aligndistill"
        turns = [{"role": "user", "content": marker}]
        prompt = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        whole = self.tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": marker}], tokenize=False)
        between = whole[len(prompt) : whole.rindex(marker)] if whole.startswith(prompt) else ""
        return " " if between == " " else ""

    def _continuation(self, text: str) -> list[int]:
        """The ids of text that continues other text."""
        if not self._adds_prefix_space or not text:
            return self._encode(text)
        if text.startswith(" ") and text != " ":  # the tokenizer adds no space to empty text
            return self._encode(text[1:])
        anchor = self._encode("\n")
        ids = self._encode("\n" + text)
        return ids[len(anchor) :] if ids[: len(anchor)] == anchor else self._encode(text)
