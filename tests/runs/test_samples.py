"""Samples and comparisons of runs, with numbers by hand."""

from pathlib import Path

import pytest

from aligndistill.errors import ConfigError, DataError
from aligndistill.records import Message
from aligndistill.runs.comparison import comparison
from aligndistill.runs.samples import samples
from aligndistill.stages.scored_answers import ScoredAnswer
from aligndistill.store.jsonl import write_jsonl


def answer(prompt: str, author: str, text: str, tokens: int, truth: float | None = None, win: float | None = None) -> ScoredAnswer:
    values = {"prompt_id": prompt, "messages": (Message(role="user", content=f"{prompt}?"),), "author": author, "text": text}
    return ScoredAnswer.model_validate({**values, "length_tokens": tokens, "truth": truth, "reward": None, "win": win})


def evaluation(folder: Path, *answers: ScoredAnswer) -> Path:
    folder.mkdir(parents=True)
    write_jsonl(folder / "scored.jsonl", answers)
    return folder


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """Truth of dpo minus the start's: a -0.5, b +1, c 0 (the same text), d -1."""
    return evaluation(
        tmp_path / "one",
        *(answer(prompt, "start", f"start {prompt}", 4, truth) for prompt, truth in zip("abcd", (0.5, 0.0, 1.0, 1.0), strict=True)),
        answer("a", "dpo", "x", 6, 0.0, 0.2),
        answer("b", "dpo", "y", 1, 1.0, 0.8),
        answer("c", "dpo", "start c", 4, 1.0, 0.5),
        answer("d", "dpo", "z", 9, 0.0, 0.4),
    )


@pytest.mark.parametrize(
    ("which", "found"),
    [("worse", "da"), ("better", "b"), ("longer", "da"), ("shorter", "b"), ("same", "c"), ("all", "abcd")],
)
def test_the_clearest_cases_first(one: Path, which: str, found: str) -> None:
    assert "".join(sample.id for sample in samples(one, "dpo", which).rows) == found  # type: ignore[arg-type]


def test_without_truth_the_judge_says_what_is_worse(tmp_path: Path) -> None:
    rows = [answer(prompt, "start", "s", 4) for prompt in "abc"]
    rows += [answer(prompt, "dpo", "x", 4, win=win) for prompt, win in zip("abc", (0.4, 0.1, 0.9), strict=True)]
    folder = evaluation(tmp_path / "judged", *rows)
    assert "".join(sample.id for sample in samples(folder, "dpo", "worse").rows) == "ba"
    assert "".join(sample.id for sample in samples(folder, "dpo", "better").rows) == "c"


def test_as_a_data_frame_with_the_starts_columns_beside(one: Path) -> None:
    frame = samples(one, "dpo", "worse").to_pandas()
    assert list(frame["prompt_id"]) == ["d", "a"]
    assert list(frame["truth_start"]) == [1.0, 0.5]
    assert list(frame["truth"]) == [0.0, 0.0]
    assert list(frame["win"]) == [0.4, 0.2]
    assert list(samples(one, "dpo", "worse").to_pandas().columns) == list(samples(one, "start", "better").to_pandas().columns)
    assert samples(one, "start", "better").to_pandas().empty
    assert "dpo, all: 4 prompts" in samples(one, "dpo", "all")._repr_html_()


def test_what_is_not_there_is_named(one: Path) -> None:
    with pytest.raises(ConfigError, match="'worst' is unknown"):
        samples(one, "dpo", "worst")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no held-out answers of a student 'ppo'"):
        samples(one, "ppo", "all")


def test_differences_are_paired_over_shared_prompts(one: Path, tmp_path: Path) -> None:
    other = evaluation(
        tmp_path / "other",
        answer("a", "start", "s", 4, 0.5),
        answer("a", "dpo", "x", 8, 0.5, 0.6),
        answer("b", "dpo", "y", 3, 1.0, 0.8),
        answer("e", "dpo", "q", 99, 0.0, 0.0),  # not in the base run
        answer("e", "only here", "q", 99, 0.0, 0.0),
    )
    found = comparison("one -> other", one, other, {"reward": "said first."})
    truth = found.cells["dpo", "truth"]
    assert (truth.base, truth.other, truth.difference.mean, truth.difference.n) == (0.5, 0.75, 0.25, 2)  # a: 0 to 0.5, b: 1 to 1
    length = found.cells["dpo", "length_tokens"]
    assert (length.base, length.other, length.difference.mean) == (3.5, 5.5, 2.0)
    assert {model for model, _ in found.cells} == {"start", "dpo"}
    assert ("start", "win") not in found.cells
    assert found.notes == ("said first.", "2 held-out prompts are shared, of 4 and 3.")
    row = found.to_pandas().set_index(["model", "measure"]).loc[("dpo", "win")]
    assert row["difference"] == pytest.approx((0.4 + 0.0) / 2)
    assert row["n"] == 2


def test_runs_without_shared_prompts_are_refused(one: Path, tmp_path: Path) -> None:
    other = evaluation(tmp_path / "strange", answer("z", "dpo", "x", 1, 0.0))
    with pytest.raises(DataError, match="share no held-out prompts"):
        comparison("one -> strange", one, other, {})
