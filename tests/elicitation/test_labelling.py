"""What a labelling model is asked, how its replies are read, and the rows of the student."""

import pytest

from aligndistill.elicitation.labelling import (
    CUT_OFF,
    EMPTY,
    NO_FINAL_ANSWER,
    NO_RATIONALE,
    REFUSAL,
    ReadReply,
    label_request,
    mentions_hint,
    nearest_examples,
    read_reply,
    rows,
    why_dropped,
    with_hint,
)
from aligndistill.records import Candidate, Demonstration, Message, Prompt, prompt_id
from tests.tiny_models import user


def prompt_of(*turns: Message) -> Prompt:
    return Prompt(id=prompt_id(turns), messages=turns, source="x", split="train")


def example(question: str, answer: str = "Yes.") -> Demonstration:
    return Demonstration(prompt_id=prompt_id(user(question)), split="train", messages=user(question), response=answer)


def candidate(text: str) -> Candidate:
    return Candidate(id=text, prompt_id="p", text=text, author="teacher")


def test_the_model_sees_instruction_and_examples_before_a_conversation_of_several_turns() -> None:
    turns = (
        Message(role="system", content="Be brief."),
        *user("Two and two?"),
        Message(role="assistant", content="Four."),
        *user("And three?"),
    )
    asked = label_request(turns, "Think hard.", [example("Is it?")], "none")
    assert [(turn.role, turn.content) for turn in asked] == [
        ("system", "Think hard.\n\nBe brief."),
        ("user", "Is it?"),
        ("assistant", "Yes."),
        ("user", "Two and two?"),
        ("assistant", "Four."),
        ("user", "And three?"),
    ]


def test_without_instruction_and_examples_the_prompt_is_asked_as_it_is() -> None:
    assert label_request(user("Why?"), "", [], "none") == user("Why?")


def test_reasons_are_asked_for_behind_the_instruction() -> None:
    system = label_request(user("Why?"), "Think.", [], "task")[0]
    assert system.role == "system"
    assert system.content.startswith("Think.\n\nFirst reason step by step.")


def test_nearest_examples_are_those_with_the_longest_common_subsequence_and_never_the_prompt_itself() -> None:
    examples = [
        example("What is the capital of Peru?"),  # shares 5 of 6 words: ROUGE-L 5/6
        example("Add two and three."),  # none
        example("What is the capital of France?"),  # the prompt itself
        example("Name the capital city of France please"),  # "the capital of france": 4 of 6 and 7 words, 8/13
    ]
    chosen = nearest_examples(prompt_of(*user("What is the capital of France?")), examples, 2)
    assert chosen == [examples[3], examples[0]]


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("Two and two are four.\nAnswer: 4", ReadReply("Two and two are four.", "4")),
        ("So **x**.\n\n**Final answer:** 4\nor four.", ReadReply("So **x**.", "4\nor four.")),
        ("Answer: 3?\nNo, four.\nanswer: 4", ReadReply("Answer: 3?\nNo, four.", "4")),  # the last one counts
        ("\u56e0\u4e3a\u3002\nAnswer\uff1a\u56db", ReadReply("\u56e0\u4e3a\u3002", "\u56db")),
        ("It is four.", None),
        ("The answer: four is inside a line.", None),
        ("Because of it.\nAnswer:", None),
        ("Answer: 4", None),
    ],
)
def test_a_reply_is_read_as_reasons_and_an_answer(reply: str, read: ReadReply | None) -> None:
    assert read_reply(reply, "before") == read
    assert read_reply(reply, "none") == ReadReply("", reply.strip())


@pytest.mark.parametrize(
    ("text", "finish", "rationale", "reason"),
    [
        (" \n", "stop", "none", EMPTY),
        ("A long ans", "length", "none", CUT_OFF),
        ("Because", "length", "before", CUT_OFF),
        ("I'm sorry, but I can't help with that.", "stop", "none", REFUSAL),
        ("It is risky.\nAnswer: I cannot help with that.", "stop", "task", REFUSAL),
        ("Because of it.", "stop", "before", NO_FINAL_ANSWER),
        ("Answer: four", "stop", "task", NO_RATIONALE),
        ("Because.\nAnswer: four", "stop", "task", None),
        ("Four.", "stop", "none", None),
    ],
)
def test_what_is_no_label_has_a_reason(text: str, finish: str, rationale: str, reason: str | None) -> None:
    assert why_dropped(text, finish, rationale, drops_refusals=True) == reason  # type: ignore[arg-type]


def test_where_declining_is_right_refusals_stay() -> None:
    assert why_dropped("I'm sorry, but I can't help with that.", "stop", "none", drops_refusals=False) is None


def test_a_hint_is_in_the_last_turn_and_a_reply_that_mentions_it_is_known() -> None:
    hinted = with_hint(label_request(user("Two {and} two?"), "Think.", [], "before"), "4 {prompt}")
    assert hinted[-1].content.startswith("Two {and} two?\n\nThe right answer is: 4 {prompt}\n")
    assert mentions_hint("As the hint says, four.")
    assert mentions_hint("The given answer is four, so")
    assert not mentions_hint("Two and two are four.")


def test_students_rows_have_the_plain_prompt_alone() -> None:
    prompt = prompt_of(Message(role="system", content="Be brief."), *user("Two and two?"))
    kept = [candidate("Count.\nAnswer: 4"), candidate("Add.\nAnswer: 4")]
    before = [row for _, row in rows(prompt, kept, "before")]
    assert [(row.messages, row.response, row.rationale, row.task) for row in before] == [
        (prompt.messages, "Count.\nAnswer: 4", "Count.", "answer"),
        (prompt.messages, "Add.\nAnswer: 4", "Add.", "answer"),
    ]
    ((label, plain),) = rows(prompt, [candidate("Four.")], "none")
    assert label == candidate("Four.")
    assert (plain.messages, plain.response, plain.author) == (prompt.messages, "Four.", "teacher")


def test_two_tasks_are_told_apart_by_a_system_line_of_the_rationales_alone() -> None:
    prompt = prompt_of(*user("Two and two?"))
    kept = [candidate("Count.\nAnswer: 4"), candidate("Add.\nAnswer: 4")]
    found = list(rows(prompt, kept, "task"))
    assert [label for label, _ in found] == [kept[0], kept[0], kept[1]]  # the equal answer is one row
    answer, *reasons = (row for _, row in found)
    assert (answer.messages, answer.response, answer.task) == (prompt.messages, "4", "answer")
    line = "Write the reasons that lead to the answer, not the answer itself."
    assert [(row.response, row.task) for row in reasons] == [("Count.", "rationale"), ("Add.", "rationale")]
    for row in reasons:
        assert row.messages == (Message(role="system", content=line), *prompt.messages)
    own = prompt_of(Message(role="system", content="Be brief."), *user("Why?"))
    assert [row.messages[0].content for _, row in rows(own, kept[:1], "task")] == ["Be brief.", f"Be brief.\n\n{line}"]
