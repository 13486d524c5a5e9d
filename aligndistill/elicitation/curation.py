"""Prompts about given topics: topics, their subtopics, prompts about those, by people of all kinds, in given shares.

As UltraChat (arXiv:2305.14233) and GLAN (arXiv:2402.13064) go from topics to prompts, with the persons of Persona-hub
(arXiv:2406.20094).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from aligndistill.chat.protocol import Reply
from aligndistill.config.elicitation import Curate, GeneratedTopics
from aligndistill.config.paths import at_home
from aligndistill.elicitation import rules
from aligndistill.elicitation.asking import Ask, AuthorRequest, user
from aligndistill.elicitation.collecting import Collected, Proposal, items_of, requests_for, shown_text, training, whole_items
from aligndistill.elicitation.texts import built_in, with_fields
from aligndistill.errors import DataError
from aligndistill.records import Prompt

Key = TypeVar("Key")

WAVE_OF_TOPIC = 4
"""Requests about one topic that are sent at once."""

SHOWN = 8
"""Training prompts that are shown where topics are asked for."""

KNOWN = 5
"""Prompts about the topic that the model is told not to repeat."""

TOPIC_TOKENS = 24
"""Room for the name of one topic in a list."""


@dataclass(frozen=True)
class Topic:
    """A topic and its category, which is the topic itself if no category was given."""

    name: str
    category: str


@dataclass
class _Wanted:
    """One topic: how many prompts are wanted, and what was asked so far."""

    topic: Topic
    quota: int
    subtopics: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    requests: int = 0
    in_vain: int = 0

    @property
    def missing(self) -> int:
        return self.quota - len(self.kept)


def read_topics(path: str) -> list[Topic]:
    """The topics of a file: one a line, below a line `# CATEGORY` if it has categories; empty lines and repeated topics count once.

    Raises:
        DataError: the file cannot be read, or has no topics.
    """
    category = ""
    found: dict[str, Topic] = {}
    for line in _lines(path, "topics"):
        if line.startswith("#"):
            category = line.lstrip("#").strip()
        else:
            found.setdefault(line.lower(), Topic(line, category or line))
    if not found:
        raise DataError(f"{path}: no topics. Write one a line; a line `# CATEGORY` begins a category.")
    return list(found.values())


def read_personas(path: str) -> list[str]:
    """The persons of a file, one a line.

    Raises:
        DataError: the file cannot be read, or is empty.
    """
    found = list(dict.fromkeys(_lines(path, "personas")))
    if not found:
        raise DataError(f"{path}: no personas. Write one a line, such as: a nurse who works at night.")
    return found


def _lines(path: str, what: str) -> list[str]:
    try:
        text = at_home(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"cannot read the {what} in '{path}': {reason}. Give a text file with one a line.") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def quotas(step: Curate, topics: Sequence[Topic]) -> list[int]:
    """How many prompts each topic is to have: `per_topic`, or with `shares` its part of its category's share of as many in all.

    Raises:
        DataError: a category of `shares` has no topics, or a topic has a category that is not in `shares`.
    """
    if not step.shares:
        return [step.per_topic] * len(topics)
    of_category: dict[str, list[int]] = {name: [] for name in step.shares}
    for number, topic in enumerate(topics):
        if topic.category not in of_category:
            raise DataError(
                f"shares: the topic '{topic.name}' is of the category '{topic.category}', which has no share: give it one "
                f"(shares: {', '.join(step.shares)})."
            )
        of_category[topic.category].append(number)
    if empty := [name for name, numbers in of_category.items() if not numbers]:
        raise DataError(f"shares: no topic is of the category '{empty[0]}': remove it, or add topics below a line `# {empty[0]}`.")
    found = [0] * len(topics)
    for name, whole in _parts(step.per_topic * len(topics), step.shares).items():
        numbers = of_category[name]
        for number, part in _parts(whole, {number: 1 / len(numbers) for number in numbers}).items():
            found[number] = part
    return found


def _parts(whole: int, shares: Mapping[Key, float]) -> dict[Key, int]:
    """A number in parts, as close to the shares as whole numbers can be: the largest remainders are rounded up."""
    parts = {key: int(whole * share) for key, share in shares.items()}
    remainders = sorted(shares, key=lambda key: parts[key] - whole * shares[key])
    for key in remainders[: whole - sum(parts.values())]:
        parts[key] += 1
    return parts


def curate(step: Curate, prompts: Sequence[Prompt], ask: Ask, seed: int, shown: Sequence[Prompt] | None = None) -> Collected:
    """Ask for prompts about each topic until it has enough, or until requests about it give none.

    Args:
        prompts: all prompts of the run so far, in both splits.
        shown: the training prompts that models see, where topics are asked for; by default all.

    Raises:
        DataError: a file cannot be used, see `read_topics`, `read_personas` and `quotas`.
    """
    collected = Collected(step, prompts, unlike_training=True)
    personas = read_personas(step.personas) if step.personas is not None else []
    if isinstance(step.topics, GeneratedTopics):
        topics = _generated(step, step.topics.generate, collected, prompts if shown is None else shown, ask, seed)
        if without := [name for name in step.shares or [""] if not any(name in ("", topic.category) for topic in topics)]:
            collected.stopped = f"no topics: the model listed none{' for ' if without[0] else ''}{', '.join(without)}"
            return collected
    else:
        topics = read_topics(step.topics)
    wanted = [_Wanted(topic, quota) for topic, quota in zip(topics, quotas(step, topics), strict=True)]
    if step.subtopics:
        _add_subtopics(step, wanted, ask)
    limit = step.limit(sum(one.quota for one in wanted), step.per_request)
    while open_topics := [one for one in wanted if one.missing > 0 and one.in_vain < step.patience]:
        asked = [_question(step, one, personas, number, seed) for one in open_topics for number in _numbers(step, one)]
        asked = asked[: limit - collected.requests]
        if not asked:
            break
        kept, whole = sum(len(one.kept) for one in wanted), sum(one.quota for one in wanted)
        replies = ask(
            [question for _, question in asked],
            temperature=step.temperature,
            max_new_tokens=step.max_new_tokens,
            note=f"{kept} of {whole} prompts",
        )
        for (one, question), reply in zip(asked, replies, strict=True):
            _take(step, collected, one, question, reply)
    if short := [one for one in wanted if one.missing > 0]:
        named = ", ".join(f"{one.topic.name} ({len(one.kept)} of {one.quota})" for one in short[:5])
        more = f" and {len(short) - 5} more" if len(short) > 5 else ""
        collected.stopped = f"these topics gave too few (patience, max_requests): {named}{more}"
    return collected


def _take(step: Curate, collected: Collected, one: _Wanted, question: AuthorRequest, reply: Reply) -> None:
    """Keep what a reply about a topic has."""
    one.requests += 1
    before = len(one.kept)
    text_rules, instruction = rules.TextRules(step.length, step.forbidden), built_in("curate")
    for text in items_of(collected, reply):
        category, name = one.topic.category, one.topic.name
        proposal = Proposal(text, step.kind, question, reply, topic=name, category=category)
        if reason := text_rules.broken(text) or (rules.LEAKED if rules.leaks(text, instruction) else None):
            collected.drop(proposal, reason)
        elif one.missing <= 0:
            collected.drop(proposal, rules.MORE_THAN_ASKED)
        elif collected.offer(proposal):
            one.kept.append(text)
    one.in_vain = 0 if len(one.kept) > before else one.in_vain + 1


def _numbers(step: Curate, one: _Wanted) -> range:
    """The numbers of the next requests about a topic."""
    needed = requests_for(one.missing, len(one.kept), one.requests, step.per_request)
    return range(one.requests, one.requests + min(WAVE_OF_TOPIC, needed))


def _question(step: Curate, one: _Wanted, personas: Sequence[str], number: int, seed: int) -> tuple[_Wanted, AuthorRequest]:
    chance = random.Random(f"{seed} {step.name} {one.topic.category} {one.topic.name} {number}")
    person = f" They are written by {chance.choice(personas)}." if personas else ""
    subtopic = one.subtopics[number % len(one.subtopics)] if one.subtopics else ""
    known = "\n".join(f"- {text}" for text in one.kept[-KNOWN:])
    text = with_fields(
        built_in("curate"),
        wanted=str(step.per_request),
        topic=f"{one.topic.name}: {subtopic}" if subtopic else one.topic.name,
        person=person,
        known=f"\nDo not repeat these:\n{known}" if known else "",
    )
    author = step.models[chance.randrange(len(step.models))]
    return one, AuthorRequest(author, user(text), sample=number)


def _generated(step: Curate, count: int, collected: Collected, prompts: Sequence[Prompt], ask: Ask, seed: int) -> list[Topic]:
    """Topics that the first model lists, in all or for each category, with some training prompts shown."""
    seeds = training(prompts)
    shown = random.Random(f"{seed} {step.name}").sample(seeds, min(SHOWN, len(seeds)))
    examples = "\n".join(f"- {shown_text(one)}" for one in shown)
    wanted = _parts(count, step.shares) if step.shares else {"": count}
    questions = [
        AuthorRequest(
            step.models[0],
            user(
                with_fields(
                    built_in("topics"),
                    wanted=str(count),
                    about=f' of the category "{category}"' if category else "",
                    examples=f"\nThese are examples of what they ask:\n{examples}" if examples else "",
                )
            ),
        )
        for category, count in wanted.items()
    ]
    new_tokens = max(step.max_new_tokens, max(wanted.values()) * TOPIC_TOKENS)
    replies = ask(questions, temperature=step.temperature, max_new_tokens=new_tokens, note="topics")
    found: dict[str, Topic] = {}
    for (category, most), reply in zip(wanted.items(), replies, strict=True):
        names = whole_items(reply)[:most]
        if not names:
            collected.drop_reply(reply, rules.NO_LIST)
        for name in names:
            found.setdefault(name.lower(), Topic(name, category or name))
    return list(found.values())


def _add_subtopics(step: Curate, wanted: Sequence[_Wanted], ask: Ask) -> None:
    """Ask for the subtopics of each topic; a topic whose reply lists none has none."""
    text = built_in("subtopics")
    contents = [with_fields(text, wanted=str(step.subtopics), topic=one.topic.name) for one in wanted]
    questions = [AuthorRequest(step.models[0], user(content)) for content in contents]
    most = max(step.max_new_tokens, step.subtopics * TOPIC_TOKENS)
    replies = ask(questions, temperature=step.temperature, max_new_tokens=most, note="subtopics")
    for one, reply in zip(wanted, replies, strict=True):
        one.subtopics = whole_items(reply)[: step.subtopics]
