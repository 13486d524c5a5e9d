"""Labels: what a model is asked, how its replies are read, and the rows that a student learns from.

The model sees an instruction and worked examples; the student's rows have the plain prompt alone, so that it learns to answer as if
it had seen them: context distillation (Askell et al. 2021, arXiv:2112.00861, section 2.3).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aligndistill.config.labels import Rationale
from aligndistill.data.overlap import rouge_l_of_units, units
from aligndistill.data.refusals import is_refusal
from aligndistill.elicitation.texts import built_in, passages, with_fields, with_system
from aligndistill.records import Candidate, Demonstration, Finish, Message, Prompt, plain_prompt

NO_ANSWER, EMPTY, CUT_OFF, REFUSAL = "no answer", "empty", "cut off", "refusal"
NO_FINAL_ANSWER, NO_RATIONALE, MENTIONS_HINT = "no answer after the rationale", "no rationale", "mentions the hint"

_MARK = re.compile(r"^[^\w\n]*(?:final )?answer[^\w\n:\uff1a]*[:\uff1a][*_ \t]*", re.IGNORECASE | re.MULTILINE)
"""`Answer:` at the beginning of a line, with what models put around it: `**Final answer:**`."""


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
    if drops_refusals and is_refusal(text):
        return REFUSAL
    if rationale != "none" and (read := read_reply(text, rationale)) is None:
        return NO_RATIONALE if _MARK.match(text.lstrip()) else NO_FINAL_ANSWER
    elif rationale != "none" and drops_refusals and read is not None and is_refusal(read.answer):
        return REFUSAL
    return None


def mentions_hint(text: str) -> bool:
    """Whether a reply to a prompt with a hint says that the answer was given."""
    return (
        re.search(r"\b(?:hint|(?:given|provided|stated) (?:right |correct )?answer|answer (?:was|is) given)\b", text, re.I)
        is not None
    )


def rows(prompt: Prompt, kept: Sequence[Candidate], rationale: Rationale) -> Iterator[tuple[Candidate, Demonstration]]:
    """Each label with its rows for the student: the plain prompt with an answer, without instruction, examples and hints.

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
                row = Demonstration(
                    prompt_id=prompt.id,
                    split=prompt.split,
                    messages=messages,
                    response=response,
                    rationale=read.rationale if rationale == "before" else "",
                    task="rationale" if task == "rationale" else "answer",
                    author=one.author,
                )
                yield one, row
