import random

import pytest

from aligndistill.data import duplicates
from aligndistill.data.duplicates import UnitTable, contained_items, near_duplicates
from aligndistill.data.overlap import EvaluationIndex, shingles, units
from tests.data.similarity import jaccard


def table_of(texts: list[list[str]]) -> UnitTable:
    table = UnitTable()
    for text in texts:
        table.add(text)
    return table


def random_texts(seed: int, count: int = 300, words: int = 5, longest: int = 14) -> list[list[str]]:
    draw = random.Random(seed)
    return [[f"w{draw.randrange(words)}" for _ in range(draw.randrange(longest))] for _ in range(count)]


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_are_those_of_comparing_each_with_each(
    threshold: float, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "ROWS_AT_ONCE", 70)
    texts = random_texts(seed)
    expected: dict[int, tuple[int, float]] = {}
    kept: list[int] = []
    for row, text in enumerate(texts):
        similarity = {other: jaccard(shingles(tuple(text)), shingles(tuple(texts[other]))) for other in kept}
        best = max(similarity, key=lambda other: (similarity[other], -other), default=None)
        if best is not None and similarity[best] >= threshold:
            expected[row] = (best, similarity[best])
        else:
            kept.append(row)
    found = {row: (one.row, one.score) for row, one in near_duplicates(table_of(texts), threshold).items()}
    assert found == expected
    assert found  # there are some


def test_a_text_without_units_repeats_another_one() -> None:
    assert near_duplicates(table_of([[], ["a"], []]), 0.7).keys() == {2}
    assert near_duplicates(UnitTable(), 0.7) == {}


def changed(words: list[str], count: int, draw: random.Random) -> list[str]:
    """A copy in which this many words are others."""
    places = set(draw.sample(range(len(words)), count))
    return [f"new{draw.randrange(10**6)}" if place in places else word for place, word in enumerate(words)]


def test_planted_copies_are_found_and_nothing_else() -> None:
    """A word of 40 is in 3 of 38 triples: two changed words leave a similarity of 32 / 44 = 0.73 or more, eight about 0.3."""
    draw = random.Random(4)
    originals = [[f"w{draw.randrange(5000)}" for _ in range(40)] for _ in range(2000)]
    copies = [changed(original, draw.randrange(3), draw) for original in originals[:500]]
    found = near_duplicates(table_of(originals + copies), 0.7)
    right = sum(row >= 2000 and one.row == row - 2000 for row, one in found.items())
    assert right / 500 == 1.0  # recall
    assert right / len(found) == 1.0  # precision
    far = near_duplicates(table_of(originals + [changed(original, 8, draw) for original in originals[:500]]), 0.7)
    assert not far


@pytest.mark.parametrize("above", [0.2, 0.5])
def test_contained_items_are_those_of_the_index(above: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "ROWS_AT_ONCE", 50)
    draw = random.Random(5)
    items = random_texts(6, count=60, words=40, longest=30)
    items = [item for item in items if item]
    texts = []
    for _ in range(400):
        item = draw.choice(items)
        start = draw.randrange(len(item))
        before, after = (random_texts(draw.randrange(10**6), 1, 40, 6)[0] for _ in range(2))
        texts.append([*before, *item[start : start + draw.randrange(5, 30)], *after] if draw.random() < 0.8 else item)
    found = contained_items(table_of(items + texts), range(len(items)), range(len(items), len(items) + len(texts)), above)
    index = EvaluationIndex([(str(number), " ".join(item)) for number, item in enumerate(items)], above)
    expected = {len(items) + number: index.contained(text) for number, text in enumerate(texts)}
    assert {row: (str(one.row), one.score) for row, one in found.items()} == {
        row: one for row, one in expected.items() if one[0] is not None
    }
    assert len(found) > 50


def test_planted_contamination_is_found_and_nothing_else() -> None:
    draw = random.Random(7)
    words = [f"w{number}" for number in range(3000)]
    items = [draw.choices(words, k=25) for _ in range(200)]
    clean = [draw.choices(words, k=40) for _ in range(2000)]
    planted = [[*draw.choices(words, k=10), *item, *draw.choices(words, k=10)] for item in items[:100]]
    halves = [[*draw.choices(words, k=10), *item[:12], *draw.choices(words, k=10)] for item in items[100:]]  # 12 of 25 units
    table = table_of([*items, *clean, *planted, *halves])
    found = contained_items(table, range(200), range(200, len(table)))
    assert {row: one.row for row, one in found.items()} == {2200 + number: number for number in range(100)}


@pytest.mark.parametrize(
    "sentence",
    ["请写一篇关于{}历史的短文并说明主要事件", "{}の歴史について短い文章を書いてください", "def {}(x): return x * x + 1 - g(x)"],
)
def test_copies_in_any_script_are_found(sentence: str) -> None:
    texts = [sentence.format(name) for name in ("北京", "上海博物馆", "北京市")]
    same = near_duplicates(table_of([list(units(text)) for text in texts]), 0.6)
    assert 2 in same
