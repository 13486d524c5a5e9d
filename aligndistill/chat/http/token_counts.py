"""Token counts of conversations for a server's model, exact or estimated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aligndistill.config.models import EndpointModel
from aligndistill.errors import ConfigError
from aligndistill.records import Message, as_dicts

BYTES_PER_TOKEN = 3
"""Less than for most tokenizers, so that the estimate is too high rather than too low."""

TOKENS_PER_MESSAGE = 4


@dataclass(frozen=True)
class TokenCount:
    """Counts the tokens of a conversation.

    Attributes:
        exact: whether the model's tokenizer is used; else it is an estimate from the length, usually too high.
    """

    count: Callable[[Sequence[Message]], int]
    exact: bool


def token_count(config: EndpointModel) -> TokenCount:
    """Uses the config's tokenizer, else that of a locally available model with the server model's name, else the length.

    Raises:
        ConfigError: the config's tokenizer cannot be loaded.
    """
    for name, must in ((config.tokenizer, True), (config.name, False)):
        if name is not None and (found := _by_tokenizer(name, must)):
            return TokenCount(found, exact=True)
    return TokenCount(by_length, exact=False)


def by_length(messages: Sequence[Message]) -> int:
    """An upper estimate for most texts and tokenizers."""
    return sum(-(-len(message.content.encode("utf-8", "replace")) // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE for message in messages)


def _by_tokenizer(name: str, must: bool) -> Callable[[Sequence[Message]], int] | None:
    if not must and not is_local(name):
        return None
    from jinja2 import TemplateError
    from transformers import AutoTokenizer  # imported late: it takes seconds

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=not must)
    except Exception as error:  # the library raises many types for a folder without a tokenizer
        if must:
            raise ConfigError(f"the tokenizer '{name}' cannot be loaded: {error}. Give a folder or a Hub name.") from None
        return None

    def of_texts(messages: Sequence[Message]) -> int:
        return sum(len(tokenizer.encode(message.content)) + TOKENS_PER_MESSAGE for message in messages)

    def count(messages: Sequence[Message]) -> int:
        if tokenizer.chat_template is None:
            return of_texts(messages)
        try:
            return len(tokenizer.apply_chat_template(as_dicts(messages), add_generation_prompt=True, return_dict=False))
        except TemplateError:  # it refuses the conversation: the server says so, and of this request alone
            return of_texts(messages)

    return count


def is_local(name: str) -> bool:
    """Whether there is a folder of this name, or the Hub's local cache has such a model."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(name).is_dir() or Path(HF_HUB_CACHE, f"models--{name.replace('/', '--')}").is_dir()
