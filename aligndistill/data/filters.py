"""Filters that need no model: which rows are kept, and why the others are not.

What is kept does not depend on the order of the rows, but for rows that are equal: of near duplicates the first by a hash of its id
is kept, held-out ones before those for training.
"""

import re
from array import array
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from aligndistill.config.filters import Balance, Filters
from aligndistill.data.duplicates import UnitTable, contained_items, near_duplicates
from aligndistill.data.language import language_of
from aligndistill.data.overlap import NGRAM, units
from aligndistill.data.refusals import is_refusal, plain
from aligndistill.records import Demonstration, Message, Prompt, Ranking, Split, content_hash


@dataclass(frozen=True)
class Row:
    """What filters read of a record.

    Attributes:
        id: of the record; of two demonstrations or rankings of one prompt it differs.
        prompt: all turns but the system's, which prompts share.
        answers: best first; none for a prompt alone.
        truncated: whether the model that wrote the best answer was stopped at its limit.
        file, operation: where it was read from, and how it was written.
    """

    id: str
    split: Split
    prompt: str
    answers: tuple[str, ...] = ()
    truncated: bool = False
    file: str = ""
    operation: str = ""

    @property
    def learned(self) -> str:
        """The text that a student should write, or that a model wrote: the best answer, or the prompt if there is none."""
        return self.answers[0] if self.answers else self.prompt

    @property
    def whole(self) -> str:
        """Everything."""
        return "\n".join((self.prompt, *self.answers))


@dataclass(frozen=True)
class Drop:
    """Why a row is not kept; see `Dropped`."""

    reason: str
    nearest: str | None = None
    score: float | None = None


Decisions = list[Drop | None]
"""For each row in order: why it is dropped, or None if it is kept."""


def row_of(record: Prompt | Demonstration | Ranking) -> Row:
    """What filters read of a record."""
    text = prompt_text(record.messages)
    match record:
        case Prompt():
            lineage = getattr(record, "lineage", None)
            file = record.source.rpartition(" row ")[0]
            return Row(record.id, record.split, text, file=file, operation=lineage.operation if lineage else "")
        case Demonstration():
            return Row(content_hash(record.prompt_id, record.response), record.split, text, (record.response,))
        case Ranking():
            identity = content_hash(record.prompt_id, *(f"{one.candidate_id} {one.score!r}" for one in record.responses))
            best = record.responses[0]
            answers = tuple(one.text for one in record.responses)
            return Row(identity, record.split, text, answers, truncated=best.finish == "length")


def prompt_text(messages: Sequence[Message]) -> str:
    """The turns but the system's, which prompts may share, one below the other."""
    return "\n".join(one.content for one in messages if one.role != "system")


# ------------------------------------------------------------------------------------------------------- single texts

_MAKER = "(?:openai|anthropic|google|deepmind|meta|alibaba|mistral|deepseek|moonshot|zhipu|xai|microsoft|cohere|nvidia)"
_MADE_BY = rf"(?:trained|developed|created|made|built) by {_MAKER}\b"
_MADE_BY_ZH = r"由(?:openai|阿里|百度|谷歌|深度求索)[^。！？\n]{0,20}(?:开发|開發|训练|訓練|研发|研發|创建|推出|打造)"

_SELF_REFERENCE = re.compile(
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|\bi(?:'m| am) (?:just |only )?an? (?:ai\b|(?:large )?language model|artificial intelligence|virtual assistant|chatbot)"
    rf"|\bi(?: was|'m| am|'ve been| have been) (?:\w+ )?(?:(?:trained|developed|created|made|built),? and )?{_MADE_BY}"
    r"|\b(?:i(?:'m| am)|my name is) (?:[\w-]+, )?(?:an? (?:[\w-]+ ){0,4}(?:model|assistant|ai|chatbot|bot)\b[^.!?\n]{0,40})?"
    rf"\b{_MADE_BY}|\bas an? (?:[\w-]+ ){{0,2}}assistant,? {_MADE_BY}"
    r"|\bi(?:'m| am) (?:chatgpt|gpt-?\d|claude|gemini|llama|qwen|mistral|deepseek|kimi|grok|copilot|bard)\b"
    r"|\bmy (?:training data|knowledge cut-?off)\b"
    r"|(?:作为|作為|身为|我是)(?:一个|一個|一名)?(?:人工智能|人工智慧|ai|大?语言模型|大?語言模型|通义千问|文心一言)"
    rf"|我(?:(?:是|叫)[^。！？\n]{{0,20}})?{_MADE_BY_ZH}|(?:^|[。！？\n])\W*{_MADE_BY_ZH}的[^。！？\n]{{0,8}}(?:模型|助手)"
    r"|aiとして|(?:人工知能|言語モデル|aiアシスタント)(?:として|です)"
    r"|als (?:ein )?(?:ki-|sprach)modell|en tant qu'(?:ia|intelligence artificielle|modèle de langage)"
    r"|como (?:una? )?(?:ia|modelo de lenguaje|modelo de linguagem|inteligencia artificial)\b",
)
_IN_SELF_REFERENCES = (
    *(" ai", "aiとして", "aiアシスタント", "artificial", "language model", "trained by", "developed by", "created by", "made by"),
    *(
        "built by",
        "assistant",
        "chatbot",
        "gpt",
        "claude",
        "gemini",
        "llama",
        "qwen",
        "mistral",
        "deepseek",
        "kimi",
        "grok",
        "copilot",
    ),
    *(
        "bard",
        "training data",
        "knowledge cut",
        "作为",
        "作為",
        "身为",
        "我是",
        "由",
        "人工知能",
        "言語モデル",
        "ki-modell",
        "sprachmodell",
    ),
    *("qu'ia", "artificielle", "modèle", " ia", "modelo"),
)
"""One of these is in every text that `_SELF_REFERENCE` finds; looking for them first is ten times as fast."""

_OPEN_END = re.compile(
    r"(?:[,:(\[{<&，、；：（「『《【—–]|\s\+|(?<=\d)/|(?:\w\w|\s)--?|(?<=[\s(\[\"“])(?![A-Z]+$)(?i:a|an|the|and|or))$"
)
_OPEN_END_OF_ANSWER = re.compile(
    r"(?:=|(?<=[\s(\[\"“])(?![A-Z]+$)(?i:of|to|in|on|with|for|from|by|as|at|that|which|is|are|was|were|be|because|but|if|than|such"
    r"|their|its|your|my))$"
)
"""Words in capitals are none of these: "The answer is A". Nor is a text of one word, which may be one of several choices."""


def is_self_reference(text: str) -> bool:
    """Whether a model speaks of itself: that it is one, who made it, what it was trained on."""
    searched = plain(text)
    return any(part in searched for part in _IN_SELF_REFERENCES) and _SELF_REFERENCE.search(searched) is not None


def is_cut_off(text: str, is_prompt: bool = False) -> bool:
    """Whether a text ends in the middle: after a comma, an open bracket or a word that needs another, or inside a block of code.

    A text that ends after a whole word without a full stop is not one: titles, lists and code do, too. People end prompts with most
    words and with an equals sign: "Where are you from", "12 * 7 =". So of a prompt only articles, "and" and "or" count.
    """
    end = text.rstrip()
    if text.count("```") % 2:
        return True
    if end.endswith("```"):
        return False
    last = end[-40:]
    return _OPEN_END.search(last) is not None or (not is_prompt and _OPEN_END_OF_ANSWER.search(last) is not None)


def _alone(row: Row, prompt_units: int, filters: Filters) -> Drop | None:
    """What the text of a row says, without the other rows."""
    if filters.length is not None:
        fewest, most = filters.length
        if not fewest <= prompt_units <= most:
            return Drop("too short" if prompt_units < fewest else "too long", score=prompt_units)
    if filters.cut_off and (row.truncated or is_cut_off(row.learned, is_prompt=not row.answers)):
        return Drop("cut off")
    if filters.refusals and is_refusal(row.learned):
        return Drop("refusal")
    if filters.self_references and is_self_reference(row.learned):
        return Drop("self-reference")
    if filters.language:
        for text in dict.fromkeys((row.prompt, row.learned)):
            language = language_of(text)
            if language is not None and language not in filters.language:
                return Drop("another language")
    return None


# --------------------------------------------------------------------------------------------------------- other rows


def decide(
    rows: Iterable[Row],
    filters: Filters,
    evaluation: Iterable[tuple[str, str]] = (),
    held_out_prompts: Iterable[tuple[str, str]] = (),
    settled: Container[str] = (),
) -> Decisions:
    """Which rows are kept by the filters that need no model, without `balance`. Rows are read once.

    Args:
        evaluation: ids and texts of evaluation items besides the held-out rows: training rows must not contain them.
        held_out_prompts: the same of held-out prompts of the run that are not among the rows.
        settled: ids of rows that are kept: the others are compared with them.
    """
    decisions: Decisions = []
    ids: list[str] = []
    compared = _Compared()
    texts, items, short_prompts = array("q"), array("q"), array("q")  # rows of the table
    held_out: set[int] = set()
    for number, row in enumerate(rows):
        prompt = units(row.prompt)
        drop = None if row.id in settled else _alone(row, len(prompt), filters)
        decisions.append(drop)
        ids.append(row.id)
        if row.split == "held_out":
            held_out.add(number)
            items.append(compared.add(number, prompt))
        if drop is None and (row.split == "train" or row.answers):
            texts.append(compared.add(number, units(row.whole) if row.answers else prompt))
        elif drop is None:  # a held-out prompt is its own text
            texts.append(items[-1])
        if drop is None and row.split == "train" and row.answers and len(prompt) < NGRAM:  # compared whole, so without its answers
            short_prompts.append(compared.add(number, prompt))
    for identity, item in held_out_prompts:
        held_out.add(len(ids))
        items.append(compared.add(len(ids), units(item)))
        ids.append(identity)
    for identity, item in evaluation:
        items.append(compared.add(len(ids), units(item)))
        ids.append(identity)

    table, owners = compared.table, compared.owners
    learned = [one for one in (*texts, *short_prompts) if owners[one] not in held_out and ids[owners[one]] not in settled]
    for text, found in contained_items(table, items, learned).items():
        reason = "contains a held-out prompt" if owners[found.row] in held_out else "contains an evaluation item"
        decisions[owners[text]] = Drop(reason, ids[owners[found.row]], found.score)
    if filters.duplicates is not None:
        left = [text for text in texts if decisions[owners[text]] is None]
        left.sort(key=lambda text: (owners[text] not in held_out, ids[owners[text]] not in settled, ids[owners[text]]))
        for text, found in near_duplicates(table, filters.duplicates, left).items():
            leaks = owners[found.row] in held_out and owners[text] not in held_out
            reason = "near duplicate of a held-out row" if leaks else "duplicate" if found.score == 1 else "near duplicate"
            drop = Drop(reason, ids[owners[found.row]], found.score)
            decisions[owners[text]] = drop if ids[owners[text]] not in settled else None
    return decisions


class _Compared:
    """The texts that are compared.

    Attributes:
        owners: of each row of the table, the number of what it is of.
    """

    def __init__(self) -> None:
        self.table = UnitTable()
        self.owners = array("q")

    def add(self, owner: int, text: Sequence[str]) -> int:
        """Add a text, given as its units; returns its row of the table."""
        self.owners.append(owner)
        self.table.add(text)
        return len(self.owners) - 1


def balance(rows: Iterable[Row], decisions: Decisions, limit: Balance, settled: Container[str] = ()) -> None:
    """Drop rows of groups that have more than their share of the training rows, those last by hash first; changes `decisions`.

    The shares are of what is left. Fewer than 1 / share groups cannot be balanced: then each keeps as many rows as the smallest.

    Args:
        settled: ids of rows that are kept whatever their group has; they count first.
    """
    group_of: dict[int, str] = {}
    order: dict[int, tuple[bool, str]] = {}
    for number, row in enumerate(rows):
        if decisions[number] is None and row.split == "train":
            group_of[number] = group_name(row, limit.by)
            order[number] = row.id not in settled, content_hash("balance", row.id)
    most = _most_in_a_group(Counter(group_of.values()), limit.at_most)
    kept: Counter[str] = Counter()
    for number in sorted(group_of, key=lambda one: order[one]):
        group = group_of[number]
        if kept[group] < most or not order[number][0]:
            kept[group] += 1
        else:
            decisions[number] = Drop(f"more than its share of {limit.by} '{group}'")


def group_name(row: Row, by: Literal["language", "operation", "file"]) -> str:
    """The group of a row."""
    if by == "language":
        return language_of(row.prompt) or "unknown"
    return (row.operation if by == "operation" else row.file) or "none"


def _most_in_a_group(sizes: Counter[str], share: float) -> int:
    """The largest size to which groups can be cut so that none has more than its share; that of the smallest if there is none.

    A group's share never falls when all are cut at a larger size, so the size is found by halving.
    """
    low, high = 0, max(sizes.values(), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        fits = middle <= share * sum(min(middle, size) for size in sizes.values()) + 1e-9
        low, high = (middle, high) if fits else (low, middle - 1)
    return low or min(sizes.values(), default=0)
