import pytest

from aligndistill.reporting.samples import SampleAnswer, SamplePrompt, choose_samples


def prompt(name, start, *students, measure="truth"):
    answers = [SampleAnswer("start", "s", **{measure: start}), SampleAnswer("teacher", "t", **{measure: 1.0})]
    answers += [SampleAnswer(f"student {index}", "x", **{measure: value}) for index, value in enumerate(students)]
    return SamplePrompt(name, tuple(answers))


@pytest.mark.parametrize("measure", ["truth", "score"])
def test_most_typical_and_least_improved(measure):
    # Gains 0, 0.1, ... 0.8, in scrambled order; the teacher's figure plays no part.
    gains = [3, 8, 1, 0, 6, 4, 2, 7, 5]
    prompts = [prompt(str(gain), 0.1, 0.1 + gain / 10, 0.1 + gain / 10, measure=measure) for gain in gains]
    chosen = choose_samples(prompts, 6)
    assert [sample.prompt for sample in chosen] == ["8", "7", "5", "4", "1", "0"]
    assert [sample.note for sample in chosen] == [
        "most improved",
        "most improved",
        "typical",
        "typical",
        "least improved",
        "least improved",
    ]


def test_gain_is_the_mean_over_students():
    prompts = [prompt("a", 0.0, 1.0, 0.0), prompt("b", 0.0, 0.6, 0.6), prompt("c", 0.0, 0.1, 0.1), prompt("d", 0.5, 0.4, 0.4)]
    assert [sample.prompt for sample in choose_samples(prompts, 3)] == ["b", "a", "d"]


@pytest.mark.parametrize("count", range(1, 9))
def test_as_many_as_asked_and_none_twice(count):
    prompts = [prompt(str(index), 0.0, index / 10) for index in range(9)]
    chosen = [sample.prompt for sample in choose_samples(prompts, count)]
    assert len(chosen) == len(set(chosen)) == count


def test_without_metrics_the_first_ones():
    prompts = [SamplePrompt(str(index), (SampleAnswer("start", "a"), SampleAnswer("dpo", "b"))) for index in range(9)]
    assert choose_samples(prompts, 4) == prompts[:4]
    assert choose_samples(prompts[:2], 4) == prompts[:2]
    assert choose_samples([], 4) == []
