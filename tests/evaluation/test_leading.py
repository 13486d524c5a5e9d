"""Which students may be the best, and what choosing the best is worth."""

import random

import numpy as np
import pytest

from aligndistill.evaluation.leading import Leading, Measured, in_first_half, leading, leading_by_first

PROMPTS = [f"{number:x}" for number in range(400)]
FIRST = [prompt for prompt in PROMPTS if in_first_half(prompt)]
SECOND = [prompt for prompt in PROMPTS if not in_first_half(prompt)]


def scores(first: float, second: float, noise: float = 0.0, seed: int = 0) -> list[Measured]:
    """A student with these means on the halves."""
    chance = random.Random(seed)
    halves = ((FIRST, first), (SECOND, second))
    return [Measured(prompt, value + noise * chance.gauss(0, 1)) for prompts, value in halves for prompt in prompts]


def found(*arguments: object, **students: list[Measured]) -> Leading:
    result = leading("truth", students)
    assert result is not None
    return result


def test_the_halves_are_halves() -> None:
    assert 160 < len(FIRST) < 240


def test_the_best_on_each_half_is_measured_on_the_other() -> None:
    lead = found(lucky=scores(0.9, 0.5), good=scores(0.8, 0.7))
    assert lead.chosen == ("lucky", "good")
    crossed = (len(SECOND) * 0.5 + len(FIRST) * 0.8) / 400
    assert lead.value.mean == pytest.approx(crossed)
    assert (lead.leader, lead.value.n) == ("good", 400)
    assert lead.differences["lucky"].mean == pytest.approx((len(FIRST) * -0.1 + len(SECOND) * 0.2) / 400)


def test_choosing_among_equals_is_worth_no_more_than_one_of_them() -> None:
    """The best of ten by chance seems better than it is; the cross-fitted value does not."""
    students = {f"s{n}": scores(0.5, 0.5, noise=1.0, seed=n) for n in range(10)}
    lead = found(**students)
    best = max(np.mean([one.value for one in of_student]) for of_student in students.values())
    assert best > 0.55
    assert lead.value.mean < best
    assert lead.value.low < 0.5 < lead.value.high
    assert len(lead.group) >= 9


def test_pairing_finds_a_difference_that_intervals_of_each_hide() -> None:
    """Prompts differ a lot, students little: each interval is wide, the paired one has no width."""
    ahead = scores(0.52, 0.52, noise=0.3)
    behind = [Measured(one.prompt, one.value - 0.02) for one in ahead]
    lead = found(ahead=ahead, behind=behind)
    assert lead.value.high - lead.value.low > 0.05
    difference = lead.differences["behind"]
    assert (difference.low, difference.high) == (pytest.approx(0.02), pytest.approx(0.02))
    assert lead.group == ("ahead",)


def test_the_interval_is_that_of_the_paired_difference() -> None:
    """Against the formula for large samples."""
    ahead, behind = scores(0.6, 0.6, noise=0.3, seed=1), scores(0.5, 0.5, noise=0.3, seed=2)
    lead = found(ahead=ahead, behind=behind)
    values = [{one.prompt: one.value for one in of_student} for of_student in (ahead, behind)]
    differences = np.array([values[0][prompt] - values[1][prompt] for prompt in PROMPTS])
    half = 1.96 * differences.std() / 400**0.5  # with two students there is one comparison
    assert lead.differences["behind"].mean == pytest.approx(differences.mean())
    assert lead.differences["behind"].high - lead.differences["behind"].low == pytest.approx(2 * half, rel=0.1)


def test_samples_of_a_prompt_count_as_one_and_only_shared_prompts_count() -> None:
    one = [*scores(0.6, 0.6), *scores(0.4, 0.4), Measured("ff1", 99.0)]
    lead = found(one=one, other=scores(0.3, 0.3)[:-50])
    assert (lead.value.mean, lead.value.n) == (pytest.approx(0.5), 350)


def test_with_more_students_intervals_are_wider() -> None:
    """For 5 comparisons, 99% intervals."""
    ahead, behind = scores(0.6, 0.6, noise=0.3, seed=1), scores(0.55, 0.55, noise=0.3, seed=2)
    others = {f"other{n}": scores(0.1, 0.1, noise=0.3, seed=3 + n) for n in range(4)}
    two, six = found(ahead=ahead, behind=behind), found(ahead=ahead, behind=behind, **others)
    widths = [lead.differences["behind"].high - lead.differences["behind"].low for lead in (two, six)]
    assert widths[1] / widths[0] == pytest.approx(2.58 / 1.96, rel=0.12)


def test_without_two_students_or_halves_none_leads() -> None:
    assert leading("truth", {"only": scores(0.5, 0.5)}) is None
    few = [Measured(prompt, 0.5) for prompt in FIRST[:5]]
    assert leading("truth", {"one": few, "other": few}) is None


def judged(bonus: float, slope: float, seed: int) -> list[Measured]:
    """Comparisons of a judge that likes length: P(win) is logistic in it."""
    chance = random.Random(seed)
    lengths = {prompt: chance.gauss(3, 5) for prompt in PROMPTS}
    logits = {prompt: bonus + slope * np.tanh(length / 5) for prompt, length in lengths.items()}
    return [Measured(prompt, float(1 / (1 + np.exp(-logits[prompt]))), lengths[prompt]) for prompt in PROMPTS]


def test_at_equal_length_the_longer_student_does_not_lead() -> None:
    students = {"long": judged(0.2, 2.0, seed=1), "good": judged(0.6, 0.0, seed=2)}
    plain, controlled = leading("win_rate", students), leading("win_rate_lc", students)
    assert plain is not None
    assert controlled is not None
    assert (plain.leader, controlled.leader) == ("long", "good")
    assert controlled.value.mean == pytest.approx(1 / (1 + np.exp(-0.6)), abs=0.01)
    assert controlled.differences["long"].mean == pytest.approx(1 / (1 + np.exp(-0.6)) - 1 / (1 + np.exp(-0.2)), abs=0.03)


def test_the_first_measure_that_all_have() -> None:
    longer = [Measured(prompt, 0.6, 1.0) for prompt in PROMPTS]  # always longer: equal length says nothing
    rates = {"a": longer, "b": longer}
    measures = {"truth": {"a": scores(0.5, 0.5), "b": []}, "win_rate_lc": rates, "win_rate": rates}
    lead = leading_by_first(measures)  # type: ignore[arg-type]
    assert lead is not None
    assert lead.measure == "win_rate"
    assert leading_by_first({"truth": {"a": [], "b": []}}) is None
