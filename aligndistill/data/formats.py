"""Detects the format of a row from its columns, and reads a prompt, a demonstration or scored answers from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from aligndistill.data.conversations import (
    Messages,
    checked_prompt,
    checked_response,
    conversation_of,
    prompt_of,
    response_of,
    text_of,
)
from aligndistill.data.datasets import Rated, distilabel, list_of, number_of, rewardbench, ultrafeedback
from aligndistill.data.files import BadRow, SourceRow
from aligndistill.data.pairs import pair_of
from aligndistill.data.transcripts import is_transcript
from aligndistill.errors import DataError
from aligndistill.records import Lineage, Message

Format = Literal["distilabel", "hh", "preference", "prompts", "rankings", "rewardbench", "ultrafeedback"]


@dataclass(frozen=True)
class PromptRow:
    """A prompt and its answer."""

    prompt: Messages
    response: str


@dataclass(frozen=True)
class ScoredRow:
    """One answer and its score: higher is better, on the data's own scale."""

    text: str
    score: float
    author: str


@dataclass(frozen=True)
class RankedRow:
    """A prompt and its scored answers, in the row's order."""

    prompt: Messages
    answers: tuple[ScoredRow, ...]


def format_of(row: SourceRow) -> Format:
    """Detect a row's format from its columns.

    Raises:
        DataError: the columns do not match any format.
    """
    columns = row.values.keys()
    if {"prompt", "responses"} <= columns:
        return "rankings"
    if {"instruction", "completions"} <= columns:
        return "ultrafeedback"
    if ("generations" in columns and "instruction" in columns) or (
        "generation" in columns and columns & {"instruction", "messages"}
    ):
        return "distilabel"
    if {"prompt", "chosen", "rejected"} <= columns and are_lists_of_texts(row.values["chosen"], row.values["rejected"]):
        return "rewardbench"
    if {"chosen", "rejected"} <= columns:
        texts = [row.values["chosen"], row.values["rejected"]]
        transcripts = "prompt" not in columns and all(isinstance(text, str) and is_transcript(text) for text in texts)
        return "hh" if transcripts else "preference"
    if "prompt" in columns or "messages" in columns:
        return "prompts"
    raise DataError(
        f"{row.where}: unknown row format; the columns are {_names(row.values)}. Known formats are prompt; messages; "
        "prompt and completion; chosen and rejected (with or without prompt); prompt, responses and scores; instruction with "
        "generations (distilabel) or completions (UltraFeedback). "
        "Map your column names to these, as in `columns: {prompt: question}`."
    )


def read_prompt(values: Mapping[str, Any], row_format: Format) -> Messages:
    """The prompt of a row of any format.

    Raises:
        BadRow: there is no prompt, or it is not a valid one.
    """
    if row_format == "distilabel" and "generation" in values:
        return _generation(values).prompt
    if row_format in ("distilabel", "ultrafeedback"):
        _require(values, "instruction")
        return prompt_of(values["instruction"])
    if row_format in ("hh", "preference"):
        _require(values, "chosen", "rejected")
        _check_transcripts(values, row_format)
        return pair_of(values).prompt
    if row_format in ("rankings", "rewardbench") or "prompt" in values:
        _require(values, "prompt")
        return prompt_of(values["prompt"])
    turns = _messages(values)
    return checked_prompt(turns[:-1] if turns[-1].role == "assistant" else turns)


def lineage_of(values: Mapping[str, Any]) -> Lineage | None:
    """Where a prompt that a model wrote comes from, if the row says so in our own form.

    Tables give every row every column: what a prompt does not have is null or empty there.

    Raises:
        BadRow: a column `lineage` with a `root` that is otherwise not in our form: its split could not be known.
    """
    given = values.get("lineage")
    if not isinstance(given, Mapping) or not given.get("root"):
        return None
    try:
        return Lineage.model_validate({name: part or None for name, part in given.items() if part or name != "topic"})
    except ValidationError as error:
        raise BadRow("lineage cannot be read", ", ".join(str(one["loc"][0]) for one in error.errors())) from None


def context_of(values: Mapping[str, Any]) -> str:
    """The passages in the column `context`: a text, or a list of texts. Anything else there is no context."""
    given = values.get("context")
    found = [given] if isinstance(given, str) else given if isinstance(given, list | tuple) else []
    return "\n\n".join(one.strip() for one in found if isinstance(one, str) and one.strip())


def read_demonstration(values: Mapping[str, Any]) -> PromptRow:
    """The prompt and its answer: `prompt` and `completion`, `messages` that end with an assistant turn, or distilabel's columns.

    Raises:
        BadRow: the row has none of these.
    """
    if "generation" in values:
        return _generation(values)
    if "completion" in values:
        _require(values, "prompt", "completion")
        prompt = prompt_of(values["prompt"])
        response = response_of(values["completion"], "completion")
        if isinstance(values["prompt"], str) and is_transcript(values["prompt"]):
            response = response.strip()
    else:
        turns = _messages(values)
        if turns[-1].role != "assistant":
            raise BadRow("no assistant turn at the end", "of messages")
        prompt, response = checked_prompt(turns[:-1]), turns[-1].content
    return PromptRow(prompt, checked_response(response))


def _generation(values: Mapping[str, Any]) -> PromptRow:
    """A row of distilabel's ChatGeneration (`messages`) or TextGeneration (`instruction`, optionally `system_prompt`)."""
    _require(values, "generation")
    if values.get("messages") is not None:
        prompt = checked_prompt(_messages(values))
    else:
        _require(values, "instruction")
        prompt = prompt_of(values["instruction"])
        if values.get("system_prompt"):
            prompt = (Message(role="system", content=text_of(values["system_prompt"], "system_prompt")), *prompt)
    return PromptRow(prompt, checked_response(response_of(values["generation"], "generation")))


def read_judged(values: Mapping[str, Any], row_format: Format) -> RankedRow:
    """The prompt and its scored answers. A pair without scores has 1 for chosen and 0 for rejected.

    Raises:
        BadRow: fewer than two answers, an empty one, equal ones in a pair, or invalid scores.
    """
    match row_format:
        case "rankings":
            return _ranking(values)
        case "ultrafeedback":
            _require(values, "instruction", "completions")
            return _rated(prompt_of(values["instruction"]), ultrafeedback(values))
        case "distilabel":
            _require(values, "instruction", "generations", "ratings")
            return _rated(prompt_of(values["instruction"]), distilabel(values))
        case "rewardbench":
            _require(values, "prompt", "chosen", "rejected")
            if not isinstance(values["chosen"], list):
                return _pair(values, "preference")  # version 1
            return _rated(prompt_of(values["prompt"]), rewardbench(values))
        case _:
            return _pair(values, row_format)


def _rated(prompt: Messages, answers: list[Rated]) -> RankedRow:
    if len(answers) < 2:
        raise BadRow("fewer than two responses with a score", f"{len(answers)}")
    return RankedRow(prompt, tuple(ScoredRow(checked_response(one.text), one.score, one.author) for one in answers))


def _pair(values: Mapping[str, Any], row_format: Format) -> RankedRow:
    _require(values, "chosen", "rejected")
    _check_transcripts(values, row_format)
    pair = pair_of(values)
    if pair.chosen == pair.rejected:
        raise BadRow("chosen equals rejected")
    scores = [_first(values, f"score_{which}", f"{which}_rating") for which in ("chosen", "rejected")]
    authors = [_first(values, f"{which}_model") or which for which in ("chosen", "rejected")]
    better, worse = (1.0, 0.0) if scores == [None, None] else (_score(scores[0]), _score(scores[1]))
    if better < worse:
        raise BadRow("chosen has the lower score", f"{better} < {worse}")
    chosen = ScoredRow(checked_response(pair.chosen), better, str(authors[0]))
    return RankedRow(pair.prompt, (chosen, ScoredRow(checked_response(pair.rejected), worse, str(authors[1]))))


def _ranking(values: Mapping[str, Any]) -> RankedRow:
    _require(values, "prompt", "responses", "scores")
    prompt = prompt_of(values["prompt"])
    responses, scores = list_of(values["responses"], "responses"), list_of(values["scores"], "scores")
    named = values.get("authors") is not None
    authors = list_of(values["authors"], "authors") if named else ["unknown"] * len(responses)
    for name, given in (("scores", scores), ("authors", authors)):
        if len(given) != len(responses):
            raise BadRow(f"responses and {name} differ in length", f"{len(responses)} and {len(given)}")
    if len(responses) < 2:
        raise BadRow("fewer than two responses", f"{len(responses)}")
    if not all(isinstance(author, str) and author for author in authors):
        raise BadRow("authors are not text")
    texts = [checked_response(response_of(response, "response")) for response in responses]
    return RankedRow(prompt, tuple(ScoredRow(*answer) for answer in zip(texts, map(_score, scores), authors, strict=True)))


def _messages(values: Mapping[str, Any]) -> Messages:
    _require(values, "messages")
    turns = conversation_of(values["messages"], "messages")
    if turns is None:
        raise BadRow("messages is not a list of messages")
    return turns


def _check_transcripts(values: Mapping[str, Any], row_format: Format) -> None:
    for column in ("chosen", "rejected"):
        if row_format == "hh" and not (isinstance(values[column], str) and is_transcript(values[column])):
            raise BadRow("not a Human/Assistant transcript", column)


def _score(value: Any) -> float:
    """A finite number, also as text, because CSV has only text."""
    number = number_of(value)
    if number is None:
        raise BadRow("score is not a finite number", repr(value))
    return number


def _first(values: Mapping[str, Any], *names: str) -> Any:
    """The first of these columns that is present and not null; tools differ in their column names."""
    return next((values[name] for name in names if values.get(name) is not None), None)


def are_lists_of_texts(*values: Any) -> bool:
    """Whether each value is a non-empty list of texts, as for the answers in RewardBench 2."""
    return all(isinstance(value, list) and value and all(isinstance(text, str) for text in value) for value in values)


def _require(values: Mapping[str, Any], *columns: str) -> None:
    for column in columns:
        if column not in values:
            raise BadRow(f"missing {column}", f"the columns are {_names(values)}")
        if values[column] is None:
            raise BadRow(f"missing {column}", "it is null")


def _names(values: Mapping[str, Any]) -> str:
    return ", ".join(map(str, values)) or "none"
