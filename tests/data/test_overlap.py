import random
import re
from collections.abc import Sequence

import pytest

from aligndistill.data.overlap import (
    EvaluationIndex,
    common_subsequence,
    nearest_by_rouge_l,
    rouge_l,
    shingles,
    units,
)
from tests.data.similarity import jaccard


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What's the Capital of France?", ["what's", "the", "capital", "of", "france"]),
        ("一步一步地回答, please", ["一", "步", "一", "步", "地", "回", "答", "please"]),
        ("カタカナとひらがな", list("カタカナとひらがな")),
        ("ｶﾀｶﾅ \uff21\uff22\uff23", ["カ", "タ", "カ", "ナ", "abc"]),  # half-width kana, full-width letters
        ("ภาษาที่", ["ภ", "า", "ษ", "า", "ที่"]),  # a vowel sign and a tone mark belong to their consonant
        ("हिन्दी में लिखो।", ["हिन्दी", "में", "लिखो"]),
        ("한국어로 답하세요", ["한국어로", "답하세요"]),
        ("for i in range(n): total_sum += x[i] - 1", ["for", "i", "in", "range", "n", "total_sum", "+", "=", "x", "i", "-", "1"]),
        ("well-known and/or 3-1 é-a", ["well", "known", "and", "or", "3", "-", "1", "é", "a"]),
        ("3-1 well-known", ["3", "-", "1", "well", "known"]),
        ("😀 👍 😀", ["😀", "👍", "😀"]),
        ("...", ["..."]),
        ("", []),
    ],
)
def test_units_are_words_or_characters_where_a_script_has_no_spaces(text: str, expected: list[str]) -> None:
    assert list(units(text)) == expected


def test_ascii_texts_have_the_same_units_whichever_expression_reads_them() -> None:
    text = "It's a+b, x-1, y - 2, well-known `a/b` 3/4 and/or C++ a_b %s ~x ^2 <tag> dogs' 'quoted'"
    assert units(text) == units(text + " é")[:-1]


def slow_common(a: Sequence[str], b: Sequence[str]) -> int:
    """The textbook table."""
    row = [0] * (len(b) + 1)
    for one in a:
        before = row[:]
        for place, other in enumerate(b):
            row[place + 1] = before[place] + 1 if one == other else max(before[place + 1], row[place])
    return row[-1]


def test_the_common_subsequence_is_that_of_the_textbook_table() -> None:
    draw = random.Random(0)
    for _ in range(500):
        a, b = (draw.choices("abcdefg", k=draw.randrange(0, 90)) for _ in range(2))  # longer than a machine word, too
        assert common_subsequence(a, b) == slow_common(a, b)


def test_rouge_l_by_hand() -> None:
    # police, the, gunman are common, in order: 2 * 3 / (4 + 4)
    assert rouge_l("police killed the gunman", "police kill the gunman") == 0.75
    assert rouge_l("the gunman kill police", "police kill the gunman") == 0.5
    assert rouge_l("", "police") == 0.0


def test_rouge_l_is_that_of_rouge_score() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    draw = random.Random(1)
    words = ["sum", "of", "all", "the", "cities", "in", "a", "list"]
    for _ in range(100):
        a, b = (" ".join(draw.choices(words, k=draw.randrange(1, 30))) for _ in range(2))
        assert rouge_l(a, b) == pytest.approx(scorer.score(a, b)["rougeL"].fmeasure, abs=1e-12)


def test_the_nearest_text_is_the_one_with_the_highest_rouge_l() -> None:
    draw = random.Random(2)
    others = [(str(number), draw.choices("abcdefgh", k=draw.randrange(1, 12))) for number in range(200)]
    for _ in range(50):
        text = draw.choices("abcdefghij", k=draw.randrange(1, 12))
        scores = {name: 2 * slow_common(text, other) / (len(text) + len(other)) for name, other in others}
        nearest, score = nearest_by_rouge_l(text, others)
        assert score == max(scores.values())
        assert nearest is not None
        assert scores[nearest] == score
    assert nearest_by_rouge_l(["z"], others) == (None, 0.0)


def test_shingles_and_their_similarity_by_hand() -> None:
    assert shingles(("a", "b", "c", "d")) == {("a", "b", "c"), ("b", "c", "d")}
    assert shingles(("a", "b")) == {("a", "b")}
    assert jaccard(shingles(("a", "b", "c", "d")), shingles(("a", "b", "c", "e"))) == 1 / 3
    assert jaccard(frozenset(), frozenset()) == 0.0


def test_an_item_is_contained_if_n_grams_of_a_text_cover_more_than_half_of_it() -> None:
    item = [f"t{number}" for number in range(20)]
    index = EvaluationIndex([("item", " ".join(item)), ("short", "Name a fruit.")])
    twelve, ten = ["so", *item[3:15], "there"], ["so", *item[3:13], "there"]
    assert index.contained(twelve) == ("item", 12 / 20)
    assert index.contained(ten) == (None, 0.0)  # exactly half
    assert index.contained([*item[:8], "x", *item[8:15]]) == (None, 0.0)  # the second run has seven units
    assert index.contained([*item[:8], "x", *item[12:]]) == ("item", 16 / 20)
    assert index.contained(units("name a FRUIT")) == ("short", 1.0)
    assert index.contained(units("please name a fruit")) == (None, 0.0)


@pytest.mark.parametrize(
    "item",
    [
        "请写一篇关于长江沿岸城市历史的短文",
        "日本の首都について短い文章を書いてください",
        "def f(x): return x * x + 3 * x - g(x) % 7",
    ],
)
def test_an_item_of_any_script_is_found_inside_a_longer_text(item: str) -> None:
    index = EvaluationIndex([("item", item)])
    assert index.contained(units(f"Translate: {item} (thanks)")) == ("item", 1.0)
    assert index.contained(units(item[: len(item) // 3])) == (None, 0.0)


def test_units_hold_no_spaces() -> None:
    assert not [one for one in units("a \u3000b\u00a0c\n日 本\u2028d") if re.search(r"\s", one)]
