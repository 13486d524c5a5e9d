import random

import pytest

from aligndistill.chat.protocol import Reply
from aligndistill.config.elicitation import OPERATIONS, Evolve
from aligndistill.elicitation import rules
from aligndistill.elicitation.evolution import evolve
from aligndistill.records import Message, Usage
from tests.elicitation.prompts import HELD_OUT, TRAIN, all_prompts, prompt, texts
from tests.elicitation.scripted_teacher import ScriptedAsk, reply_to

BEES = [
    Message(role="system", content="Answer in one sentence."),
    Message(role="user", content="How do I keep bees on a balcony?"),
    Message(role="assistant", content="In a small hive."),
    Message(role="user", content="And when it gets cold there?"),
]


def step(**changes: object) -> Evolve:
    return Evolve.model_validate({"name": "harder", "kind": "evolve", **changes})


def is_comparison(request: str) -> bool:
    return "Do these two prompts" in request


def test_each_training_prompt_has_a_child_in_its_line() -> None:
    ask = ScriptedAsk()
    collected = evolve(step(per_prompt=2), all_prompts(), ask, seed=0)
    assert len(collected.kept) == 2 * len(TRAIN)
    assert len(ask.asked) == 4 * len(TRAIN)  # each new prompt is compared with the old one
    for one in collected.kept:
        assert one.lineage is not None
        assert one.lineage.operation in OPERATIONS
        assert one.lineage.root == one.lineage.parent
        assert one.split == "train"
    assert {one.root for one in collected.kept} == {prompt(text).id for text in TRAIN}


def test_later_rounds_evolve_what_the_round_before_wrote() -> None:
    collected = evolve(step(rounds=3), all_prompts(), ScriptedAsk(), seed=0)
    roots = {prompt(text).id for text in TRAIN}
    parents = [one.lineage.parent for one in collected.kept if one.lineage]
    count = len(TRAIN)
    assert set(parents[:count]) == roots
    for number in (1, 2):
        before = {one.id for one in collected.kept[(number - 1) * count : number * count]}
        assert set(parents[number * count : (number + 1) * count]) == before
    assert {one.root for one in collected.kept} == roots


def test_every_operation_is_drawn_by_the_seed() -> None:
    drawn = [
        [one.lineage.operation for one in evolve(step(per_prompt=20), all_prompts(), ScriptedAsk(), seed).kept if one.lineage]
        for seed in (0, 0, 1)
    ]
    assert set(drawn[0]) == set(OPERATIONS)
    assert min(drawn[0].count(one) for one in OPERATIONS) > 0.1 * len(drawn[0])
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_alone(operation: str) -> None:
    ask = ScriptedAsk()
    collected = evolve(step(operations=(operation,)), all_prompts(), ask, seed=0)
    assert {one.lineage.operation for one in collected.kept if one.lineage} == {operation}
    assert all(("10 to 20 words" in one.messages[0].content) == (operation != "breadth") for one in ask.asked[: len(TRAIN)])


def test_of_a_conversation_the_last_turn_is_rewritten_and_the_others_stay() -> None:
    ask = ScriptedAsk()
    (new,) = evolve(step(), [prompt(BEES)], ask, seed=0).kept
    assert new.messages[:-1] == tuple(BEES[:-1])
    assert new.messages[-1].role == "user"
    assert new.messages[-1].content.startswith("And when it gets cold there?")
    for one in ask.asked:  # the request and the comparison both need the turns before
        assert "User: How do I keep bees on a balcony?\n\nAssistant: In a small hive." in one.messages[0].content


def reasons(said: str | Reply, old: str = TRAIN[0], **changes: object) -> dict[str, int]:
    """What becomes of one reply to the request to rewrite a prompt."""

    def script(request: str, sample: int) -> str | Reply:
        return reply_to(request) if is_comparison(request) else said

    prompts = [prompt(old), *(prompt(text, "held_out") for text in HELD_OUT)]
    collected = evolve(step(**changes), prompts, ScriptedAsk(script), seed=0)
    assert len(collected.kept) + sum(collected.reasons().values()) == 1
    return collected.reasons()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (TRAIN[0].upper() + "?", rules.UNCHANGED),
        ("I'm sorry, but I cannot rewrite this prompt.", rules.REFUSED),
        ("Rewritten prompts like the given prompt are hard", rules.LEAKED),
        ("Keep the language of the prompt, and everything that it needs to be answered, such as tables.", rules.LEAKED),
        ("What is it, and why?", rules.ONLY_STOP_WORDS),
        ("指南针如何找到北方", rules.OTHER_SCRIPT),
        (Reply("Explain how a compass finds north in a", "length", Usage(calls=1)), rules.CUT_OFF),
        (Reply("", "stop", Usage(calls=1)), rules.NO_REPLY),
        (HELD_OUT[0], "repeats a held-out prompt"),
        (f"{HELD_OUT[0]}, without any comparison", "repeats a held-out prompt"),
        ("Translate my excuse into polite business Korean", "too similar to a held-out prompt"),
        ("Explain how a compass finds north near the pole", None),
        ("Rewritten prompt: Explain how a compass finds north near the pole", None),  # a label is no leak
    ],
)
def test_each_rule_is_a_reason_of_its_own(said: str | Reply, reason: str | None) -> None:
    assert reasons(said) == ({reason: 1} if reason else {})


def test_a_prompt_about_given_prompts_may_stay_one() -> None:
    assert reasons("Count the letters of the given prompt twice", old="Count the letters of the given prompt") == {}


def test_a_prompt_that_the_run_has_is_dropped() -> None:
    def script(request: str, sample: int) -> str:
        return reply_to(request) if is_comparison(request) else TRAIN[1]

    collected = evolve(step(), all_prompts(), ScriptedAsk(script), seed=0)
    assert not collected.kept
    assert collected.reasons() == {rules.DUPLICATE: len(TRAIN) - 1, rules.UNCHANGED: 1}


@pytest.mark.parametrize(
    ("judgement", "reason"), [("Equal", rules.EQUAL), ("Hm, difficult to say.", rules.UNREADABLE), ("Not equal.", None)]
)
def test_what_the_teacher_judges_equal_is_dropped(judgement: str, reason: str | None) -> None:
    ask = ScriptedAsk(lambda request, sample: judgement if is_comparison(request) else reply_to(request))
    collected = evolve(step(), [prompt(TRAIN[0])], ask, seed=0)
    assert collected.reasons() == ({reason: 1} if reason else {})
    assert evolve(step(compare=False), [prompt(TRAIN[0])], ask, seed=0).reasons() == {}


@pytest.mark.parametrize(("answer", "dropped"), [("Sorry, I do not know.", 1), ("sorry " + "word " * 80, 0), ("North.", 0)])
def test_what_is_answered_by_a_refusal_is_dropped(answer: str, dropped: int) -> None:
    def script(request: str, sample: int) -> str:
        return reply_to(request) if "-----" in request else answer

    asking, silent = ScriptedAsk(script), ScriptedAsk(script)
    collected = evolve(step(answer=True), [prompt(TRAIN[0])], asking, seed=0)
    assert collected.reasons() == ({rules.REFUSED_ANSWER: 1} if dropped else {})
    assert len(asking.asked) == 3
    evolve(step(), [prompt(TRAIN[0])], silent, seed=0)  # only where answers are asked for
    assert len(silent.asked) == 2


def test_the_order_of_the_prompts_and_other_prompts_change_nothing() -> None:
    prompts = [*all_prompts(), prompt(BEES)]
    kept = evolve(step(rounds=2), prompts, ScriptedAsk(), seed=0).kept
    random.Random(0).shuffle(prompts)
    assert evolve(step(rounds=2), prompts, ScriptedAsk(), seed=0).kept == kept
    fewer = evolve(step(rounds=2), all_prompts(), ScriptedAsk(), seed=0).kept
    assert {one.id for one in fewer} < {one.id for one in kept}


def test_an_upper_bound_of_requests_is_known() -> None:
    for changes in ({"per_prompt": 2, "rounds": 2}, {"rounds": 3, "answer": True}, {"compare": False}):
        ask = ScriptedAsk()
        collected = evolve(step(**changes), all_prompts(), ask, seed=0)
        assert len(collected.kept) == step(**changes).most_prompts(len(TRAIN))
        assert len(ask.asked) == step(**changes).most_requests(len(TRAIN))


def test_new_prompts_are_read_without_what_is_around_them() -> None:
    def script(request: str, sample: int) -> str:
        return reply_to(request) if is_comparison(request) else '"How do foxes hear mice below the snow?"\n'

    assert texts(evolve(step(), [prompt(TRAIN[0])], ScriptedAsk(script), seed=0).kept) == ["How do foxes hear mice below the snow?"]
