"""How many tokens a conversation has for a server's model, as well as that can be known here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aligndistill.config.models import EndpointModel
from aligndistill.errors import ConfigError
from aligndistill.records import Message

BYTES_PER_TOKEN = 3
"""Fewer than most tokenizers put into a token, so that this counts too many rather than too few."""

TOKENS_PER_MESSAGE = 4


@dataclass(frozen=True)
class TokenCount:
    """Counts the tokens of a conversation as the model gets it.

    Attributes:
        exact: whether by the model's tokenizer; else by length, and then rather too many.
    """

    count: Callable[[Sequence[Message]], int]
    exact: bool


def token_count(config: EndpointModel) -> TokenCount:
    """By the tokenizer that the config names, by that of a local model which the server's model is named after, else by length.

    Raises:
        ConfigError: the tokenizer that the config names cannot be loaded.
    """
    for name, must in ((config.tokenizer, True), (config.name, False)):
        if name is not None and (found := _by_tokenizer(name, must)):
            return TokenCount(found, exact=True)
    return TokenCount(by_length, exact=False)


def by_length(messages: Sequence[Message]) -> int:
    """An upper estimate for most texts and tokenizers."""
    return sum(-(-len(message.content.encode("utf-8", "replace")) // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE for message in messages)


def _by_tokenizer(name: str, must: bool) -> Callable[[Sequence[Message]], int] | None:
    if not must and not _is_here(name):
        return None
    from transformers import AutoTokenizer  # only where there may be a tokenizer: it takes seconds

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=not must)
    except Exception as error:  # whatever a folder that is no tokenizer's makes the library say
        if must:
            raise ConfigError(f"the tokenizer '{name}' cannot be loaded: {error}. Give a folder or a Hub name.") from None
        return None

    def count(messages: Sequence[Message]) -> int:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        if tokenizer.chat_template is None:
            return sum(len(tokenizer.encode(message.content)) + TOKENS_PER_MESSAGE for message in messages)
        return len(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))

    return count


def _is_here(name: str) -> bool:
    """Whether there is a folder of this name, or something of this name was ever fetched from the Hub."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(name).is_dir() or Path(HF_HUB_CACHE, f"models--{name.replace('/', '--')}").is_dir()
