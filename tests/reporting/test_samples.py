import pytest

from aligndistill.reporting.samples import SampleAnswer, SamplePrompt, chosen, samples_of


def prompt(name, start, student, measure="truth"):
    answers = [SampleAnswer("start", "s", **{measure: start}), SampleAnswer("teacher", "t", **{measure: 1.0})]
    return SamplePrompt(name, (*answers, SampleAnswer("dpo", "x", **{measure: student})), id=name)


@pytest.mark.parametrize("measure", ["truth", "reward"])
def test_most_gained_median_and_most_lost(measure):
    # Gains -0.3, -0.2, ... 0.5, in scrambled order; the median of nine is the fifth, 0.1. The teacher plays no part.
    gains = [3, -1, 5, 0, -3, 4, 1, -2, 2]
    prompts = [prompt(str(gain), 0.4, 0.4 + gain / 10, measure) for gain in gains]
    found = chosen("dpo", prompts)
    assert [sample.id for sample in found] == ["5", "1", "-3"]
    assert [sample.note for sample in found] == [
        f"Most gained: {measure} +0.50",
        f"Median: {measure} +0.10",
        f"Most lost: {measure} -0.30",
    ]
    assert [answer.author for answer in found[0].answers] == ["start", "dpo", "teacher"]


def test_where_nothing_was_lost_it_is_the_least_gained():
    found = chosen("dpo", [prompt("a", 0.0, 0.2), prompt("b", 0.0, 0.1)])
    assert [(one.id, one.note) for one in found] == [("a", "Most gained: truth +0.20"), ("b", "Least gained: truth +0.10")]


def test_the_judge_counts_where_no_truth_is_known():
    answers = [
        SamplePrompt(name, (SampleAnswer("start", "s"), SampleAnswer("dpo", "x", win=win)))
        for name, win in (("a", 0.1), ("b", 0.9))
    ]
    assert [one.note for one in chosen("dpo", answers)] == ["Most gained: P(win) +0.40", "Most lost: P(win) -0.40"]


def test_each_student_has_its_own_and_without_metrics_the_first_three():
    bare = [SamplePrompt(str(number), (SampleAnswer("start", "a"), SampleAnswer("dpo", "b"))) for number in range(9)]
    assert [one.prompt for one in samples_of(["dpo", "unwritten"], bare)["dpo"]] == ["0", "1", "2"]
    assert samples_of(["dpo", "unwritten"], bare).keys() == {"dpo"}
    assert samples_of(["dpo"], []) == {}


@pytest.mark.parametrize(
    ("answer", "facts"),
    [
        (SampleAnswer("dpo", "x", 0.0, -2.77, 3, 0.2), "truth 0.00 · reward -2.77 · 3 tokens · loses to start"),
        (SampleAnswer("dpo", "x", tokens=1, win=0.9), "1 token · beats start"),
        (SampleAnswer("dpo", "x", tokens=1200, win=0.5), "1,200 tokens · ties with start"),
        (SampleAnswer("start", "x", 1.0, win=0.5), "truth 1.00"),
        (SampleAnswer("dpo", "x"), ""),
    ],
)
def test_facts_have_names_units_and_a_direction(answer, facts):
    assert answer.facts == facts
