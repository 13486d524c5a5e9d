"""Which pairs are compared: plans by themselves, and what they come to with the product's judge and rankings."""

import itertools
import math
from collections.abc import Callable

import pytest

from aligndistill.errors import ConfigError
from aligndistill.judges.pair_selection import Pair, PairHistory, choose_pairs, random_pairs
from benchmarks.judging import Teacher, Way, measure, tasks_of

Probability = Callable[[int, int], float]


def play(comparisons: str, n_candidates: int, probability: Probability) -> tuple[PairHistory, list[list[Pair]]]:
    """Go through a plan, each pair shown in one order."""
    history = PairHistory(n_candidates)
    rounds = []
    for pairs in choose_pairs(comparisons, history):
        rounds.append(pairs)
        for one, other in pairs:
            pair = (other, one) if (one, other) in history.shown else (one, other)
            assert pair not in history.shown
            history.shown[pair] = probability(*pair)
    return history, rounds


def by_number(one: int, other: int) -> float:
    """Three logits for each place: sure, and transitive."""
    return 1 / (1 + math.exp(-3 * (one - other)))


def test_all_pairs_are_one_round() -> None:
    _, rounds = play("all", 5, by_number)
    assert rounds == [list(itertools.combinations(range(5), 2))]


@pytest.mark.parametrize("comparisons", ["all", "sort", "swiss", "random(3)"])
@pytest.mark.parametrize("n_candidates", [0, 1])
def test_fewer_than_two_have_nothing_to_compare(comparisons: str, n_candidates: int) -> None:
    assert not any(play(comparisons, n_candidates, by_number)[1])


@pytest.mark.parametrize("n_candidates", range(2, 18))
def test_sorting_finds_a_clear_order_with_no_more_than_merge_sorts_comparisons(n_candidates: int) -> None:
    history, rounds = play("sort", n_candidates, by_number)
    most = sum(math.ceil(math.log2(place)) for place in range(1, n_candidates + 1))  # OEIS A001855
    assert sum(map(len, rounds)) <= most
    strengths = history.strengths()
    assert strengths == sorted(strengths)


@pytest.mark.parametrize("n_candidates", [2, 3, 8, 9, 16])
def test_swiss_finds_a_clear_order_and_stops(n_candidates: int) -> None:
    history, rounds = play("swiss", n_candidates, by_number)
    strengths = history.strengths()
    assert strengths == sorted(strengths)
    assert len(history.shown) <= n_candidates * (n_candidates - 1) / 2
    assert all(len({one for pair in pairs for one in pair}) == 2 * len(pairs) for pairs in rounds)  # each at most once


def test_swiss_asks_less_where_the_order_is_clear_and_again_where_it_is_close() -> None:
    def calls(logits: float) -> int:
        return len(play("swiss", 8, lambda one, other: 1 / (1 + math.exp(-logits * (one - other))))[0].shown)

    assert calls(1.0) < calls(0.1) <= calls(0.02)

    def close_at_the_top(one: int, other: int) -> float:
        quality = (0, 4, 8, 8.1)
        return 1 / (1 + math.exp(quality[other] - quality[one]))

    history, _ = play("swiss", 4, close_at_the_top)
    assert history.met(2, 3) == 2
    assert history.met(0, 1) == 1


def test_swiss_ends_when_no_reply_can_be_read() -> None:
    history = PairHistory(6)
    for pairs in choose_pairs("swiss", history):
        for one, other in pairs:
            history.shown[(other, one) if (one, other) in history.shown else (one, other)] = None
    assert len(history.shown) <= 30


@pytest.mark.parametrize(("n_candidates", "n_pairs"), [(8, 12), (7, 7), (5, 10), (4, 100), (2, 1)])
def test_random_pairs_are_different_hang_together_and_are_fairly_dealt(n_candidates: int, n_pairs: int) -> None:
    pairs = random_pairs(n_candidates, n_pairs)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) == min(n_pairs, math.comb(n_candidates, 2))
    games = [sum(one in pair for pair in pairs) for one in range(n_candidates)]
    assert max(games) - min(games) <= 2
    reached = {0}
    for _ in range(n_candidates):
        reached |= {one for pair in pairs if reached & set(pair) for one in pair}
    assert reached == set(range(n_candidates))


def test_an_unknown_method_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"'elo'.*all, sort, swiss or random\(n\)"):
        choose_pairs("elo", PairHistory(3))


# ------------------------------------------------------------------------------ with the judge and the rankings


def test_both_orders_take_a_preference_for_a_place_out_of_the_rankings() -> None:
    """However strong it is; and what one order leaves of it is taken off by the judge's advantage over all prompts."""
    tasks = tasks_of(6, 40)
    unbiased = measure(Teacher(noise=0.0, bias=0.0, soft=True), Way("all", True), tasks)
    for bias in (0.5, 3.0):
        assert measure(Teacher(0.0, bias, soft=True), Way("all", True), tasks).tau == pytest.approx(unbiased.tau, abs=0.01)
        assert measure(Teacher(0.0, bias, soft=True), Way("all", False), tasks).tau == pytest.approx(unbiased.tau, abs=0.03)
    assert unbiased.tau == pytest.approx(1.0, abs=0.001)


def test_a_teacher_that_always_says_first_ranks_none() -> None:
    always = measure(Teacher(noise=0.0, bias=100.0, soft=False), Way("all", True), tasks_of(5, 10))
    assert always.tau == 0.0


def test_swiss_needs_a_third_of_the_calls_for_nearly_the_same_ranking() -> None:
    """What `python -m benchmarks.judging` shows with more prompts: at k = 8 and little noise, a tau within 0.02."""
    tasks = tasks_of(8, 250)
    teacher = Teacher(noise=0.25, bias=0.5, soft=True)
    everything, few = measure(teacher, Way("all", True), tasks), measure(teacher, Way("swiss", False), tasks)
    assert everything.calls == 56
    assert few.calls <= 56 / 3
    assert everything.tau - few.tau < 0.02
