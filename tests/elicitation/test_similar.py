import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligndistill.data.overlap import rouge_l
from aligndistill.elicitation.similar import HELD_OUT, NEAR_HELD_OUT, HeldOutPrompts, SimilarTexts
from aligndistill.records import Message
from tests.elicitation.prompts import HELD_OUT as HELD_OUT_TEXTS
from tests.elicitation.prompts import TRAIN, all_prompts, prompt

WORDS = st.lists(st.sampled_from("abcdef"), max_size=8).map(" ".join)


@given(text=WORDS, others=st.lists(WORDS, max_size=8), limit=st.sampled_from([0.05, 0.3, 0.5, 0.7, 0.8, 1.0]))
def test_the_nearest_text_is_that_of_all_pairs(text: str, others: list[str], limit: float) -> None:
    """No text above the limit is missed by looking at those with rare units alone."""
    index = SimilarTexts(limit, [(str(number), other) for number, other in enumerate(others)])
    scores = [rouge_l(text, other) for other in others]
    best = max(scores, default=0.0)
    nearest, score = index.nearest(text)
    assert (nearest, score) == ((str(scores.index(best)), pytest.approx(best)) if best > limit else (None, 0.0))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((text, HELD_OUT) for text in HELD_OUT_TEXTS),
        (HELD_OUT_TEXTS[0].upper() + "!", HELD_OUT),
        (f"Read this first. {HELD_OUT_TEXTS[0]} In rhymes, please, and at great length.", HELD_OUT),
        (HELD_OUT_TEXTS[0].replace("saffron", "cinnamon"), HELD_OUT),  # of 15 words 11 are in runs of eight
        ("Describe the flavour of saffron to somebody who has never cooked with any spices before", NEAR_HELD_OUT),
        ("How many old bridges cross the river that flows through Vienna?", HELD_OUT),  # "cross ... Vienna" are 7 of 10 words
        (f"Translate this. {HELD_OUT_TEXTS[2]}, then sing it to me as loudly as you can", HELD_OUT),  # a short one as a whole
        ("Translate my excuse into polite business Korean", NEAR_HELD_OUT),
        ("What spices are used in Vienna?", None),
        *((text, None) for text in TRAIN),
    ],
)
def test_what_repeats_a_held_out_prompt(text: str, reason: str | None) -> None:
    found = HeldOutPrompts(all_prompts(), 0.7).match(text)
    assert (found.reason if found else None) == reason


def test_every_user_turn_of_a_held_out_conversation_counts() -> None:
    turns = [
        Message(role="user", content="How do I keep bees on a small balcony?"),
        Message(role="assistant", content="With a hive and much care for the neighbours on either side"),
        Message(role="user", content="Would they sting my cat in the garden?"),
    ]
    held_out = HeldOutPrompts([prompt(turns, "held_out"), prompt("Name a river")], 0.7)
    for turn in (turns[0], turns[2]):
        match = held_out.match(turn.content)
        assert match is not None
        assert match.reason == HELD_OUT
    assert held_out.match(turns[1].content) is None


def test_short_held_out_texts_are_looked_for_as_whole_prompts_alone() -> None:
    held_out = HeldOutPrompts([prompt("Tell me more", "held_out")], 0.7)
    assert held_out.match("tell me more!") is not None
    assert held_out.match("Please tell me more of the history of the Habsburg family") is None


def test_chinese_is_compared_by_characters() -> None:
    held_out = HeldOutPrompts([prompt("为什么天空是蓝色的而不是绿色的", "held_out")], 0.7)
    assert held_out.match("请问为什么天空是蓝色的而不是绿色的呢") is not None
    assert held_out.match("怎样在家里做一碗好吃的牛肉面") is None
