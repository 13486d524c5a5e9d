import random
import re

import pytest

from aligndistill.chat.protocol import Reply
from aligndistill.config.elicitation import Expand
from aligndistill.data.overlap import rouge_l
from aligndistill.elicitation import rules
from aligndistill.elicitation.expansion import expand
from aligndistill.records import Dropped, Lineage, Message, Prompt, Usage
from tests.elicitation.prompts import HELD_OUT, TRAIN, all_prompts, prompt, texts
from tests.elicitation.scripted_teacher import ScriptedAsk, numbered, prompt_about


def step(**changes: object) -> Expand:
    return Expand.model_validate({"name": "more", "kind": "expand", "target": 30, **changes})


def shots_of(request: str) -> list[str]:
    """The examples in a request."""
    return re.findall(r"^\d+\. (.+)$", request, re.MULTILINE)


def test_new_prompts_go_back_to_training_prompts() -> None:
    ask = ScriptedAsk()
    collected = expand(step(), all_prompts(), ask, seed=0)
    assert len(collected.kept) == 30
    assert not collected.stopped
    assert collected.requests == len(ask.asked) <= 4 * 4
    train = {one.id for one in all_prompts() if one.split == "train"}
    known = train | {one.id for one in collected.kept}
    for one in collected.kept:
        assert one.split == "train"
        assert one.lineage is not None
        assert one.lineage.root in train
        assert one.lineage.parent in known
        assert (one.lineage.operation, one.lineage.author) == ("expand", "teacher")
    assert collected.parsed == len(collected.kept) + len(collected.dropped)


def test_no_two_are_similar() -> None:
    kept = [*TRAIN, *texts(expand(step(max_similarity=0.4), all_prompts(), ScriptedAsk(), seed=0).kept)]
    assert len(kept) > len(TRAIN)
    for number, text in enumerate(kept[len(TRAIN) :], start=len(TRAIN)):
        assert max(rouge_l(text, other) for other in kept[:number]) <= 0.4


def test_six_shots_are_the_users_and_two_their_own_once_there_are_some() -> None:
    ask = ScriptedAsk()
    expand(step(target=40, per_request=1), all_prompts(), ask, seed=0)
    users = [sum(shot in TRAIN for shot in shots_of(one.messages[0].content)) for one in ask.asked]
    shown = [len(shots_of(one.messages[0].content)) for one in ask.asked]
    assert set(shown) == {8}
    assert users[0] == 8
    assert set(users[32:]) == {6}


def test_the_nearest_example_is_the_parent() -> None:
    def script(request: str, sample: int) -> str:
        return numbered([f"Explain how a compass finds {where} in a dense wood" for where in ("south", "west")], 9)

    collected = expand(step(target=2, max_similarity=1.0), all_prompts(), ScriptedAsk(script), seed=0)
    compass = prompt(TRAIN[0])
    assert [one.root for one in collected.kept] == [compass.id] * 2


def test_a_model_that_only_continues_text_continues_the_list() -> None:
    """Nothing follows the last example in a request."""
    ask = ScriptedAsk()
    expand(step(target=1), all_prompts(), ask, seed=0)
    request = ask.asked[0].messages[0].content
    assert len(ask.asked[0].messages) == 1
    assert request.splitlines()[-1] == f"8. {shots_of(request)[-1]}"


def test_long_prompts_are_no_examples() -> None:
    ask = ScriptedAsk()
    long = prompt("Summarise this: " + "word " * 200)
    expand(step(target=100), [*all_prompts(), long], ask, seed=0)
    assert not any(long.messages[0].content in one.messages[0].content for one in ask.asked)
    expand(step(target=3), [long, prompt(HELD_OUT[0], "held_out")], ask, seed=0)  # unless there are no others
    assert long.messages[0].content in ask.asked[-1].messages[0].content


def test_of_a_conversation_the_first_user_turn_is_shown() -> None:
    turns = [
        Message(role="user", content="How do I keep bees?"),
        Message(role="assistant", content="In a hive."),
        Message(role="user", content="And in winter?"),
    ]
    ask = ScriptedAsk()
    collected = expand(step(target=3), [prompt(turns), prompt(HELD_OUT[0], "held_out")], ask, seed=0)
    assert all("How do I keep bees?" in one.messages[0].content for one in ask.asked)
    assert not any("And in winter?" in one.messages[0].content for one in ask.asked)
    assert all(len(one.messages) == 1 for one in collected.kept)


def test_prompts_of_earlier_steps_are_shown_as_their_own() -> None:
    lineage = Lineage(root=prompt(TRAIN[0]).id, parent=None, operation="expand", author="teacher")
    earlier = [
        prompt(prompt_about(f"earlier {number}")).model_copy(update={"lineage": lineage.model_copy(update={"topic": str(number)})})
        for number in range(5)
    ]
    ask = ScriptedAsk()
    expand(step(target=1), [*all_prompts(), *earlier], ask, seed=0)
    shots = shots_of(ask.asked[0].messages[0].content)
    assert sum(shot in texts(earlier) for shot in shots) == 2


def dropped_for(said: str | Reply, **changes: object) -> list[Dropped]:
    """What is dropped of one reply."""
    collected = expand(
        step(target=8, patience=1, max_requests=1, **changes), all_prompts(), ScriptedAsk(lambda request, sample: said), seed=0
    )
    return collected.dropped


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Why so?", rules.TOO_SHORT),
        ("word " * 151, rules.TOO_LONG),
        ("(Explain this to me)", rules.NO_TEXT_FIRST),
        ("Show me an image of a fox", rules.FORBIDDEN_WORD),
        ("Write a program that counts foxes", rules.FORBIDDEN_START),
        ("I'm sorry, I cannot write such prompts", rules.REFUSED),
        ("Write prompts only, no answers, as a numbered list.", None),
        ("Each must make sense alone and must be answerable in text.", rules.LEAKED),
        ("为什么天空是蓝色的", rules.OTHER_SCRIPT),
        ("Which birds stay in the city during warm months?", rules.SIMILAR),
        (TRAIN[0], rules.DUPLICATE),
        (HELD_OUT[0], "repeats a held-out prompt"),
        ("Translate my excuse into polite business Korean", "too similar to a held-out prompt"),
    ],
)
def test_each_rule_is_a_reason_of_its_own(text: str, reason: str | None) -> None:
    dropped = dropped_for(numbered([text], 9))
    assert [one.reason for one in dropped] == ([reason] if reason else [])
    if dropped:
        assert dropped[0].text == text.strip()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Reply("Certainly! Here are", "length", Usage(calls=1)), rules.CUT_OFF),
        ("There is nothing that I would like to add.", rules.NO_LIST),
        ("I'm sorry, but I can't help with that.", rules.REFUSED),
        (Reply("", "stop", Usage(calls=1)), rules.NO_REPLY),
        (Reply("", "stop", Usage(calls=1), "no reply after 3 attempts"), rules.NO_REPLY),
    ],
)
def test_a_reply_of_which_nothing_is_used_is_one_row(said: str | Reply, reason: str) -> None:
    assert [one.reason for one in dropped_for(said)] == [reason]


def test_of_a_list_that_is_cut_off_the_last_prompt_is_dropped() -> None:
    """A model that only continues text goes on until it is cut off; what it wrote before is whole."""
    said = Reply("9. Explain why foxes are red\n10. Describe a day of an owl\n11. Tell a story ab", "length", Usage(calls=1))
    collected = expand(step(target=8, max_requests=1), all_prompts(), ScriptedAsk(lambda request, sample: said), seed=0)
    assert texts(collected.kept) == ["Explain why foxes are red", "Describe a day of an owl"]
    assert [(one.text, one.reason) for one in collected.dropped] == [("Tell a story ab", rules.CUT_OFF)]
    assert collected.parsed == 3


def test_similar_rows_name_what_they_repeat() -> None:
    (dropped,) = dropped_for("9. Which birds stay in the city during warm months?")
    assert dropped.nearest == prompt(TRAIN[1]).id
    assert dropped.score == pytest.approx(8 / 9)  # nine words each, one of them another


def test_a_teacher_that_repeats_itself_ends_the_step() -> None:
    ask = ScriptedAsk(lambda request, sample: numbered([prompt_about(str(n)) for n in range(8)], 9))
    collected = expand(step(target=100, patience=5, max_requests=1000), all_prompts(), ask, seed=0)
    assert len(collected.kept) == 8
    assert collected.stopped.startswith("the last ")
    assert "patience" in collected.stopped
    assert len(ask.asked) <= 32 + 5


def test_the_requests_of_a_step_are_limited() -> None:
    ask = ScriptedAsk(lambda request, sample: numbered([prompt_about(request)], 9))  # one prompt where eight are asked for
    collected = expand(step(target=100, max_requests=17, max_similarity=1.0), all_prompts(), ask, seed=0)
    assert len(ask.asked) == collected.requests == len(collected.kept) == 17
    assert "max_requests" in collected.stopped


def test_more_than_the_target_is_dropped() -> None:
    collected = expand(step(target=3), all_prompts(), ScriptedAsk(), seed=0)
    assert len(collected.kept) == 3
    assert collected.reasons() == {rules.MORE_THAN_ASKED: 5}


def test_the_order_of_the_prompts_changes_nothing() -> None:
    prompts = all_prompts()
    kept = expand(step(), prompts, ScriptedAsk(), seed=0).kept
    for seed in range(3):
        random.Random(seed).shuffle(prompts)
        assert expand(step(), prompts, ScriptedAsk(), seed=0).kept == kept
    assert expand(step(), prompts, ScriptedAsk(), seed=1).kept != kept


def test_prompts_without_spaces() -> None:
    """Chinese: lengths and similarity by characters, lists with their own punctuation."""
    seeds = [prompt(text) for text in ("请解释指南针为什么会指向北方", "冬天有哪些鸟会留在城市里", "怎样修理一把腿松了的椅子")]
    wanted = ["用三句话介绍长江的源头", "请解释指南针为什么会指向南方", "为什么呢", "好吗", "Why is the sky so blue?"]

    def script(request: str, sample: int) -> str:
        return "\n".join(f"{number}、{text}" for number, text in enumerate(wanted, start=4))

    collected = expand(step(target=5, max_requests=1), [*seeds, prompt(HELD_OUT[0], "held_out")], ScriptedAsk(script), seed=0)
    assert texts(collected.kept) == [wanted[0], wanted[2]]
    assert {one.text: one.reason for one in collected.dropped} == {
        wanted[1]: rules.SIMILAR,
        wanted[3]: rules.TOO_SHORT,
        wanted[4]: rules.OTHER_SCRIPT,
    }


def test_several_models_take_turns() -> None:
    collected = expand(step(model=("teacher", "other"), target=60), all_prompts(), ScriptedAsk(), seed=0)
    authors = [one.lineage.author for one in collected.kept if one.lineage]
    assert {authors.count("teacher") > 15, authors.count("other") > 15} == {True}


def test_seeds_that_models_wrote_may_be_all_there_are() -> None:
    lineage = Lineage(root="0f", parent=None, operation="curate", author="teacher")
    seeds = [one.model_copy(update={"lineage": lineage}) if one.split == "train" else one for one in all_prompts()]
    collected = expand(step(target=5), seeds, ScriptedAsk(), seed=0)
    assert {one.root for one in collected.kept} == {"0f"}
    assert isinstance(collected.kept[0], Prompt)
