"""What truth functions return, and what the evaluation and the audit make of it."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from aligndistill.config.audit import AuditSettings
from aligndistill.config.run import Evaluation, Runtime
from aligndistill.errors import DataError
from aligndistill.records import Answer, Candidate, Grade, Message, Prompt, prompt_id
from aligndistill.stages import evaluation
from aligndistill.stages.audit import LabelledData, audit_labelling
from aligndistill.stages.context import StageContext
from aligndistill.store.jsonl import write_jsonl

FIRST, SECOND = "Say one.", "Tell me, at some length and in plain words, what the second natural number is called in English."
TEXTS = ("a", "bb", "ccc")
TRUTH = f"{__name__}:truth"
RETURNED: dict[str, object] = {}
"""What `truth` returns, by prompt; of others the lengths."""


def truth(prompt: str, responses: list[str]) -> object:
    found = RETURNED.get(prompt, [len(response) for response in responses])
    if isinstance(found, Exception):
        raise found
    return found


def evaluated(folder: Path) -> Mapping[str, object]:
    """The metrics of an author whose answers to both prompts are TEXTS."""
    messages = [(Message(role="user", content=text),) for text in (FIRST, SECOND)]
    prompts = [Prompt(id=prompt_id(one), messages=one, source="x", split="held_out") for one in messages]
    write_jsonl(folder / "prompts.jsonl", prompts)
    rows = [
        Answer(prompt_id=one.id, author="start", text=text, finish="stop", length_tokens=1) for one in prompts for text in TEXTS
    ]
    write_jsonl(folder / "answers.jsonl", rows)
    evaluation.make(
        StageContext(name="x", folder=folder, caches=folder, runtime=Runtime()),
        settings=Evaluation(judge=None, truth=TRUTH, samples_per_prompt=3),
        models={},
        prompts=folder,
        answers={"start": folder},
        reward_model=None,
        seed=0,
        students={},
    )
    metrics: Mapping[str, object] = json.loads((folder / "evaluation.json").read_text())["authors"]["start"]
    return metrics


def audited(grades: Sequence[float]) -> float:
    """How often a judge that gives the three answers to each prompt these grades agrees with the truth."""
    candidates = [Candidate(id=f"{p}-{text}", prompt_id=p, text=text, author="start") for p in "xy" for text in TEXTS]
    verdicts = [
        Grade(prompt_id=one.prompt_id, candidate=one.id, value=grades[TEXTS.index(one.text)], judge="j") for one in candidates
    ]
    messages = {p: (Message(role="user", content=text),) for p, text in zip("xy", (FIRST, SECOND), strict=True)}
    data = LabelledData(messages, frozenset("xy"), candidates, verdicts)
    metrics = audit_labelling(data, AuditSettings(truth=TRUTH)).metrics
    assert metrics.labels is not None
    return metrics.labels.agreement.mean


@pytest.mark.parametrize(
    "returned",
    [[0.0, 1.0, 0.0], (False, True, False), np.array([0, 1, 0]), [np.float32(0), np.bool_(True), np.int64(0)]],
    ids=["floats", "booleans", "array", "numpy"],
)
def test_numbers_of_all_kinds_are_scores(returned: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(RETURNED, SECOND, returned)
    found = evaluated(tmp_path)["truth"]
    assert isinstance(found, dict)
    assert (found["mean"], found["n"]) == (pytest.approx((2 + 1 / 3) / 2), 2)
    # Of the first prompt all three pairs, of the second the middle one against both: it beats the first and loses to the last.
    assert audited([1, 2, 3]) == pytest.approx((3 + 1) / (3 + 2))


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([0.0, math.nan, 1.0], "returned [0.0, nan, 1.0]. It must return a list of 3 finite numbers, one per response."),
        ([0.0, math.inf, 1.0], "returned [0.0, inf, 1.0]. It must return a list of 3 finite numbers, one per response."),
        ([0.0, None, 1.0], "returned [0.0, None, 1.0]. It must return a list of 3 finite numbers, one per response."),
        (None, "returned None. It must return a list of 3 finite numbers, one per response."),
        ([0.0, 1.0], "returned [0.0, 1.0]. It must return a list of 3 finite numbers, one per response."),
        (KeyError("two"), "raised KeyError: 'two'"),
    ],
    ids=["nan", "infinite", "no number", "nothing", "too few", "raised"],
)
def test_anything_else_is_refused_by_evaluation_and_audit(
    returned: object, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With function, prompt (a long one is cut), value and remedy."""
    monkeypatch.setitem(RETURNED, SECOND, returned)
    expected = f"the truth function {TRUTH}, on the prompt {repr(SECOND)[:80]}..., {said}"
    with pytest.raises(DataError) as of_evaluation:
        evaluated(tmp_path)
    with pytest.raises(DataError) as of_audit:
        audited([1, 2, 3])
    assert (str(of_evaluation.value), str(of_audit.value)) == (expected, expected)
