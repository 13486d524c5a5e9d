"""Labels: what a model is asked, how its replies are read, and the rows that a student learns from.

The model sees an instruction and worked examples; the student's rows have the plain prompt alone, so that it learns to answer as if
it had seen them: context distillation (Askell et al. 2021, arXiv:2112.00861, section 2.3).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aligndistill.config.labels import Rationale
from aligndistill.data.overlap import rouge_l_of_units, units
from aligndistill.elicitation.texts import built_in, passages, with_fields, with_system
from aligndistill.records import Candidate, Demonstration, Finish, Message, Prompt, plain_prompt

NO_ANSWER, EMPTY, CUT_OFF, REFUSAL = "no answer", "empty", "cut off", "refusal"
NO_FINAL_ANSWER, NO_RATIONALE, MENTIONS_HINT = "no answer after the rationale", "no rationale", "mentions the hint"

_MARK = re.compile(r"^[^\w\n]*(?:final )?answer[^\w\n:\uff1a]*[:\uff1a][*_ \t]*", re.IGNORECASE | re.MULTILINE)
"""`Answer:` at the beginning of a line, with what models put around it: `**Final answer:**`."""

_DECLINES = re.compile(
    r"^\W*(?:(?:i['\u2019]?m|i am|we['\u2019]?re|we are)\s+(?:very |really |so )?(?:sorry|unable to|not able to)"
    r"|(?:sorry|apologies|unfortunately)\b[^.\n]{0,40}\b(?:can(?:no|['\u2019])?t|cannot|unable|not able|won['\u2019]t)"
    r"|i (?:can(?:no|['\u2019])t|cannot|won['\u2019]t|will not|must decline|have to decline)\s+"
    r"(?:help|assist|provide|answer|comply|fulfil|do that|create|write|support|engage|discuss|share|give|offer|to )"
    r"|as an? (?:ai|artificial|language model)\b"
    r"|(?:\u62b1\u6b49|\u5bf9\u4e0d\u8d77|\u5f88\u62b1\u6b49|\u6211\u65e0\u6cd5|\u6211\u4e0d\u80fd|\u4f5c\u4e3a(?:\u4e00\u4e2a)?(?:ai|\u4eba\u5de5\u667a\u80fd))"
    r"|(?:\u7533\u3057\u8a33|\u3059\u307f\u307e\u305b\u3093|\u304a\u7b54\u3048\u3067\u304d))",
    re.IGNORECASE,
)
"""Beginnings of refusals in English, Chinese and Japanese."""


@dataclass(frozen=True)
class ReadReply:
    """A reply in parts: the reasons (empty if none were asked for), and the answer."""

    rationale: str
    answer: str


def label_request(
    prompt: Sequence[Message], instruction: str, examples: Sequence[Demonstration], rationale: Rationale, context: str = ""
) -> tuple[Message, ...]:
    """The conversation that the labelling model answers.

    A system turn of the instruction, the request for reasons, passages of context and the prompt's own system turn; the examples as
    earlier turns; the prompt.
    """
    asked = built_in("rationale") if rationale != "none" else ""
    shown = [turn for one in examples for turn in (*one.messages, Message(role="assistant", content=one.response))]
    system = [turn for turn in prompt[:1] if turn.role == "system"]
    turns = [*system, *(turn for turn in shown if turn.role != "system"), *prompt[len(system) :]]
    return with_system(turns, before=[instruction, asked, passages(context)])


def with_hint(conversation: Sequence[Message], answer: str) -> tuple[Message, ...]:
    """The conversation with the right answer behind its last turn (STaR, Zelikman et al. 2022, arXiv:2203.14465, section 3.3)."""
    last = conversation[-1]
    return (*conversation[:-1], Message(role=last.role, content=with_fields(built_in("hint"), prompt=last.content, answer=answer)))


def nearest_examples(prompt: Prompt, examples: Sequence[Demonstration], count: int) -> list[Demonstration]:
    """The examples whose prompts are most similar by ROUGE-L, the most similar last; never one of the same prompt."""
    own = units(plain_prompt(prompt.messages))
    others = [one for one in examples if one.prompt_id != prompt.id]
    similarity = [rouge_l_of_units(own, units(plain_prompt(one.messages))) for one in others]
    nearest = sorted(range(len(others)), key=lambda place: (-similarity[place], place))[:count]
    return [others[place] for place in reversed(nearest)]


def read_reply(text: str, rationale: Rationale) -> ReadReply | None:
    """A reply in its parts. With a rationale: what is before the last line with `Answer:`, and what follows; None without both."""
    if rationale == "none":
        return ReadReply("", text.strip())
    marks = list(_MARK.finditer(text))
    if not marks:
        return None
    reasons, answer = text[: marks[-1].start()].strip(), text[marks[-1].end() :].strip()
    return ReadReply(reasons, answer) if reasons and answer else None


def why_dropped(text: str, finish: Finish, rationale: Rationale, drops_refusals: bool) -> str | None:
    """Why a reply is no label; None if it may be one."""
    if not text.strip():
        return EMPTY
    if finish == "length":
        return CUT_OFF
    if drops_refusals and declines(text):
        return REFUSAL
    if rationale != "none" and (read := read_reply(text, rationale)) is None:
        return NO_RATIONALE if _MARK.match(text.lstrip()) else NO_FINAL_ANSWER
    elif rationale != "none" and drops_refusals and read is not None and declines(read.answer):
        return REFUSAL
    return None


def declines(text: str) -> bool:
    """Whether a reply begins like a refusal."""
    return _DECLINES.match(text.strip()) is not None


def mentions_hint(text: str) -> bool:
    """Whether a reply to a prompt with a hint says that the answer was given."""
    return (
        re.search(r"\b(?:hint|(?:given|provided|stated) (?:right |correct )?answer|answer (?:was|is) given)\b", text, re.I)
        is not None
    )


def rows(prompt: Prompt, kept: Sequence[Candidate], rationale: Rationale) -> Iterator[Demonstration]:
    """The student's rows of a prompt: the plain prompt with each answer, without instruction, examples and hints.

    With `before`, the answer is the whole reply. With `task` there is a row for each different answer, and one for each different
    rationale, told apart by a system line that nothing else has (Hsieh et al. 2023, arXiv:2305.02301, section 3.2).
    """
    told: set[tuple[str, str]] = set()
    for one in kept:
        read = read_reply(one.text, rationale)
        assert read is not None, "unreadable replies are dropped"
        texts = [("answer", prompt.messages, one.text if rationale == "before" else read.answer)]
        if rationale == "task":
            texts.append(("rationale", with_system(prompt.messages, after=[built_in("reasons_alone")]), read.rationale))
        for task, messages, response in texts:
            if (task, response) not in told:
                told.add((task, response))
                yield Demonstration(
                    prompt_id=prompt.id,
                    split=prompt.split,
                    messages=messages,
                    response=response,
                    rationale=read.rationale if rationale == "before" else "",
                    task="rationale" if task == "rationale" else "answer",
                    author=one.author,
                )
