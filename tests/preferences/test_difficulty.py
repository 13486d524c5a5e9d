"""How hard a prompt is, by hand, and draws that prefer hard ones."""

from collections import Counter

import pytest

from aligndistill.preferences.difficulty import Difficulty, difficulties, difficulty_of, drawn, hardest
from aligndistill.records import Message, Ranking, Response

LN3 = 1.0986122886681098  # sigmoid(ln 3) = 3/4


def ranking(prompt: str, *answers: tuple[str, float]) -> Ranking:
    ordered = sorted(answers, key=lambda one: -one[1])
    responses = tuple(Response(text=f"{n}", score=score, candidate_id=f"{n}", author=by) for n, (by, score) in enumerate(ordered))
    return Ranking(prompt_id=prompt, split="train", messages=(Message(role="user", content="?"),), responses=responses)


def test_against_the_teacher() -> None:
    found = difficulty_of(ranking("p", ("teacher", LN3), ("start", 0), ("start", 2 * LN3), ("other", 9)), taught=True)
    assert found is not None
    assert found.accept_rate == pytest.approx((1 / 4 + 3 / 4) / 2)
    assert found.difficulty == pytest.approx(LN3 - (0 + 2 * LN3) / 2)


def test_without_a_teacher_the_best_answer_is_the_measure_and_counts_a_half() -> None:
    found = difficulty_of(ranking("p", ("start", LN3), ("start", 0), ("start", 0)), taught=False)
    assert found is not None
    assert found.accept_rate == pytest.approx((1 / 2 + 1 / 4 + 1 / 4) / 3)
    assert found.difficulty == pytest.approx(2 / 3)
    other = difficulty_of(ranking("p", ("other", LN3), ("start", 0)), taught=False)
    assert other is not None
    assert other.difficulty == pytest.approx(3 / 4)
    assert difficulty_of(ranking("p", ("start", 1), ("start", 1)), taught=False) == Difficulty(0.5, 0.5)


def test_all_prompts_of_a_round_are_measured_by_one_rule() -> None:
    """With a teacher, a prompt without its answer has no difficulty, instead of one on another scale."""
    alone, both = ranking("alone", ("start", LN3), ("start", 0)), ranking("both", ("teacher", 1), ("start", 0))
    neither = ranking("neither", ("teacher", 1), ("teacher", 0))
    assert difficulties([alone]).keys() == {"alone"}
    assert difficulties([alone, both, neither]).keys() == {"both"}


def test_hard_prompts_are_drawn_in_proportion_to_their_rank() -> None:
    hard = {"easy": -3.0, "middle": 0.0, "hard": 0.1}
    counts = Counter(name for seed in range(3000) for name in drawn(hard, 1, str(seed)))
    for name, rank in (("easy", 1), ("middle", 2), ("hard", 3)):
        assert counts[name] / 3000 == pytest.approx(rank / 6, abs=4 * 0.0091)  # four standard deviations at most
    equal = Counter(name for seed in range(3000) for name in drawn({"a": 1.0, "b": 1.0}, 1, str(seed)))
    assert equal["a"] / 3000 == pytest.approx(1 / 2, abs=4 * 0.0091)


def test_a_draw_follows_from_its_seed_and_holds_each_prompt_once() -> None:
    hard = {f"{n}": float(n) for n in range(20)}
    assert drawn(hard, 5, "0", "1") == drawn(dict(reversed(hard.items())), 5, "0", "1")
    assert len({frozenset(drawn(hard, 5, "0", str(part))) for part in range(10)}) > 1
    assert len(drawn(hard, 5, "0")) == 5
    assert drawn(hard, 30, "0") == set(hard)


def test_the_hardest_come_first_and_a_hash_decides_between_equal_ones() -> None:
    hard = {"a": 0.1, "b": 2.0, "c": -1.0, "d": 0.5}
    assert hardest(hard, 2, "0") == ["b", "d"]
    assert hardest(hard, 9, "0") == ["b", "d", "a", "c"]
    assert hardest(hard, 0, "0") == []
    equal = {**{f"{n}": 1.0 for n in range(20)}, "hardest": 1.5}
    assert hardest(equal, 5, "0") == hardest(dict(reversed(equal.items())), 5, "0")
    assert len({tuple(sorted(hardest(equal, 5, str(seed)))) for seed in range(5)}) > 1
    assert all(hardest(equal, 5, str(seed))[0] == "hardest" for seed in range(5))
