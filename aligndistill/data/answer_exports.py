"""Prompts with one answer as rows for other tools: TRL's `messages`, EasyDistill, and distilabel's generation steps."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aligndistill.records import Demonstration, Lineage, Message, Prompt, Ranking, as_dicts, content_hash


@dataclass(frozen=True)
class WrittenAnswer:
    """A prompt with an answer to learn from.

    Attributes:
        model: the name of the model that wrote it; None if unknown.
        backend: the server that it ran behind, or `local`; None if unknown.
        source: the run that it is from.
        tokens: of the request that it is the reply to, of the prompt and of the reply; None if unknown.
    """

    messages: tuple[Message, ...]
    response: str
    model: str | None
    backend: str | None
    source: str
    tokens: tuple[int, int] | None = None


def answer_of(
    record: Demonstration | Ranking, models: Mapping[str, tuple[str, str]], source: str, tokens: tuple[int, int] | None = None
) -> WrittenAnswer:
    """A demonstration, or the best answer of a ranking.

    Args:
        models: for each author in the config, the model's name and its backend.
        tokens: see `WrittenAnswer`.
    """
    if isinstance(record, Demonstration):
        text, author = record.response, str(getattr(record, "author", "") or "")
    else:
        text, author = record.responses[0].text, record.responses[0].author
    model, backend = models.get(author, (author or None, None))
    return WrittenAnswer(record.messages, text, model, backend, source, tokens)


def messages_row(answer: WrittenAnswer) -> dict[str, Any]:
    """TRL's conversational form, which SFTTrainer loads unchanged."""
    return {"messages": [*as_dicts(answer.messages), {"role": "assistant", "content": answer.response}]}


def prompt_row(messages: tuple[Message, ...]) -> dict[str, Any]:
    """TRL's prompt-only form, which its online trainers load unchanged."""
    return {"prompt": as_dicts(messages)}


def easydistill_row(answer: WrittenAnswer) -> dict[str, Any]:
    """EasyDistill's form: `messages` and `metadata`. What a row does not know of its request is null."""
    identity = content_hash(*(part for turn in answer.messages for part in (turn.role, turn.content)), answer.response)
    usage = None
    if answer.tokens is not None:
        read, wrote = answer.tokens
        usage = {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
    metadata = {"source": answer.source, "model": answer.model, "request_id": identity, "backend": answer.backend, "usage": usage}
    return {**messages_row(answer), "metadata": metadata}


def distilabel_answer_row(answer: WrittenAnswer) -> dict[str, Any]:
    """The columns of distilabel's ChatGeneration, with `instruction` as TextGeneration has it.

    `messages` is the prompt. `distilabel_metadata` has what the model was shown by way of training data, not a step's own template,
    what it wrote, and the tokens of both as they were sent.
    """
    turns, (read, wrote) = as_dicts(answer.messages), answer.tokens or (None, None)
    return {
        "instruction": answer.messages[-1].content,
        "messages": turns,
        "generation": answer.response,
        "model_name": answer.model,
        "distilabel_metadata": {
            "raw_input_chat_generation_0": turns,
            "raw_output_chat_generation_0": answer.response,
            "statistics_chat_generation_0": {"input_tokens": read, "output_tokens": wrote},
        },
    }


def lineage_columns(prompts: Iterable[Prompt]) -> Callable[[str], dict[str, Any]]:
    """For the id of each prompt its column `lineage`, by which another run splits the prompt and its answers as this one did.

    No column if no prompt has a lineage. Else every row has all parts as texts, empty ones where the prompt has none: loaders take
    the type of a column from a file's first rows.
    """
    known = {one.id: one.lineage for one in prompts if one.lineage is not None}
    if not known:
        return lambda prompt: {}
    none = dict.fromkeys(Lineage.model_fields, "")
    parts = {prompt: {name: getattr(one, name) or "" for name in none} for prompt, one in known.items()}
    return lambda prompt: {"lineage": parts.get(prompt, none)}
