"""The second judge: which pairs it is asked about, and what the audit makes of its verdicts."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from aligndistill.config.audit import Audit, AuditSettings
from aligndistill.errors import JudgeError
from aligndistill.evaluation.intervals import wilson
from aligndistill.records import Candidate, Comparison, Prompt, content_hash
from aligndistill.stages import audit, second_verdicts
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import CANDIDATES, PROMPTS, VERDICTS, read_verdicts
from aligndistill.stages.judge_work import judge_work
from aligndistill.stages.second_verdicts import sampled_pairs
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from tests.stages.labelled import MODELS, Teacher, context_in, inputs_of, judge_of, labelled, with_teacher
from tests.stages.test_audit_stage import honest, worth


def contrary(prompt: str, first: str, second: str) -> str:
    return "[[A]]" if worth(prompt, first) < worth(prompt, second) else "[[B]]"


def asked_second(context: StageContext, teacher: Teacher, sample: int) -> StageContext:
    """A stage beside that of the labels, with the second judge's verdicts."""
    own = replace(with_teacher(context, teacher), folder=context.folder / "second")
    own.folder.mkdir()
    inputs = {**inputs_of(context), "verdicts": context.folder}
    second_verdicts.make(own, judge=judge_of(context.folder), models=MODELS, sample=sample, seed=0, **inputs)
    return own


def held_out(context: StageContext) -> list[str]:
    return [one.id for one in read_jsonl(inputs_of(context)["prompts"] / PROMPTS, Prompt) if one.split == "held_out"]


def test_a_pair_of_each_of_a_fixed_sample_of_held_out_prompts_is_judged(tmp_path: Path) -> None:
    context = labelled(context_in(tmp_path), honest)
    verdicts = list(read_verdicts(asked_second(context, honest, sample=5).folder))
    order = sorted(held_out(context), key=lambda name: content_hash("second judge", name))
    assert [one.prompt_id for one in verdicts[::2]] == order[:5]
    assert len(verdicts) == 5 * 2  # in both orders
    pairs = {(one.prompt_id, frozenset((one.first, one.second))) for one in verdicts if isinstance(one, Comparison)}
    assert len(pairs) == 5


def test_other_answers_are_judged_to_the_same_prompts(tmp_path: Path) -> None:
    """As in another round, where another student wrote them."""
    context = labelled(context_in(tmp_path), honest)
    given = inputs_of(context)["candidates"]
    other = tmp_path / "later"
    other.mkdir()
    rows = [one.model_copy(update={"id": f"later-{one.id}"}) for one in read_jsonl(given / CANDIDATES, Candidate)]
    write_jsonl(other / CANDIDATES, rows[::-1])
    first, second = (sampled_pairs(given, place, None, 6) for place in (given, other))
    assert [one.prompt_id for one in first] == [one.prompt_id for one in second]
    assert not {c.id for task in first for c in task.candidates} & {c.id for task in second for c in task.candidates}


def test_only_pairs_that_the_judge_decided_are_asked_about(tmp_path: Path) -> None:
    context = labelled(context_in(tmp_path), honest)
    given = inputs_of(context)["prompts"]
    names = sorted(held_out(context), key=lambda name: content_hash("second judge", name))
    decided = {names[0]: [], names[1]: [(f"{names[1]}-0", f"{names[1]}-2")], names[3]: [(f"{names[3]}-1", f"{names[3]}-2")]}
    tasks = sampled_pairs(given, given, decided, 2)
    assert [{one.id for one in task.candidates} for task in tasks] == [set(decided[names[1]][0]), set(decided[names[3]][0])]


@pytest.mark.parametrize(("teacher", "agreement"), [(honest, 1.0), (contrary, 0.0)])
def test_the_audit_measures_the_agreement_and_stops_the_run(tmp_path: Path, teacher: Teacher, agreement: float) -> None:
    context = labelled(context_in(tmp_path), honest)
    second = asked_second(context, teacher, sample=12)
    settings = Audit.model_validate({"stop": {"second_disagreement": 0.5}})
    limits = AuditSettings(warn=settings.warn, stop=settings.stop)
    given: Mapping[str, Path] = {**inputs_of(context), "verdicts": context.folder, "second_verdicts": second.folder}
    if agreement < 0.5:
        with pytest.raises(JudgeError, match=r"nothing is trained.* 100% \[76% to 100%\] of the pairs are decided otherwise"):
            audit.make(context, settings=limits, **given)
        assert audit.make(context, settings=limits, ends_rounds=True, **given).metrics["stops"]
    else:
        audit.make(context, settings=limits, **given)
    found = json.loads((context.folder / "audit.json").read_text())
    assert found["metrics"]["second_agreement"] == wilson(12 * agreement, 12).model_dump()
    assert len(found["warnings"]) == (agreement < 0.5)


def test_its_work_is_counted_apart(tmp_path: Path) -> None:
    context = labelled(context_in(tmp_path), honest)
    second = asked_second(context, honest, sample=4)
    work = judge_work("pairwise", None, {"1": {"verdicts": context.folder, "second_verdicts": second.folder}}, None)
    assert work is not None
    assert [(one.purpose, one.verdicts, one.calls) for one in work.work][-1] == ("second judge", 8, 8)
    assert (second.folder / VERDICTS).is_file()


def test_an_interrupted_sample_is_not_asked_again(tmp_path: Path) -> None:
    context = labelled(context_in(tmp_path), honest)
    asked: list[tuple[str, str, str]] = []

    def counting(prompt: str, first: str, second: str) -> str:
        if len(asked) == 7:
            raise KeyboardInterrupt
        asked.append((prompt, first, second))
        return honest(prompt, first, second)

    with pytest.raises(KeyboardInterrupt):
        asked_second(context, counting, sample=6)
    (tmp_path / "second").rename(tmp_path / "kept")
    later: list[tuple[str, str, str]] = []

    def again(prompt: str, first: str, second: str) -> str:
        later.append((prompt, first, second))
        return honest(prompt, first, second)

    (tmp_path / "caches").mkdir(exist_ok=True)
    own = replace(with_teacher(context, again), folder=tmp_path / "kept")
    inputs = {**inputs_of(context), "verdicts": context.folder}
    second_verdicts.make(own, judge=judge_of(tmp_path), models=MODELS, sample=6, seed=0, **inputs)
    assert len(set(asked) | set(later)) == 12
    assert len(asked) + len(later) <= 12 + 1
