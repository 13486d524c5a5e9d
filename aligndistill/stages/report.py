"""report.json and report.html: the run's figures, and one page that shows them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aligndistill.config.objectives import Online
from aligndistill.config.students import Student
from aligndistill.evaluation.calibration import LengthGapBin, PreferenceFigures, accuracy_by_length_gap, reliability
from aligndistill.records import plain_prompt
from aligndistill.reporting.page import DataCounts, PageData, write_page
from aligndistill.reporting.report import JudgeFigures, ModelFigures, Report, StartFigures, StudentFigures, write_report
from aligndistill.reporting.samples import SampleAnswer, SamplePrompt, choose_samples
from aligndistill.reporting.updates import Updates, WrittenSample
from aligndistill.stages.audit import AuditResult
from aligndistill.stages.context import Work
from aligndistill.stages.evaluation import AuthorFigures, EvaluationResult, ScoredAnswer
from aligndistill.stages.files import read_log
from aligndistill.stages.ppo_student import SAMPLES, RolloutSample
from aligndistill.stages.reward_model import HeldOutPair
from aligndistill.stages.trl_student import trl_entry
from aligndistill.store.artifacts import Manifest, library_versions, read_manifest
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.stage import Made

STUDENT = "student "
"""Inputs of this stage that are students are named so."""

LENGTH_GAP_EDGES_TOKENS = (-50, -10, 0, 10, 50)


def make_report(
    work: Work, run: str, students: Mapping[str, Student], judge_kind: str | None, config_yaml: str, store: str
) -> Made:
    """Gather what the other stages measured. `store` is the absolute path of the store, since the report names models in it."""
    manifests = {name: _manifest(work, name) for name in work.inputs}
    evaluation = _evaluation(work)
    judge = _judge(judge_kind, manifests, evaluation)
    audit = AuditResult.model_validate(manifests["audit"].figures) if "audit" in manifests else None
    report = Report(
        run=run,
        seed=work.seed,
        start=StartFigures(**_figures(evaluation, "start", StartFigures)),
        teacher=ModelFigures(**_figures(evaluation, "teacher", ModelFigures)) if "teacher" in evaluation.authors else None,
        judge=judge,
        audit=audit.figures if audit else None,
        reward_model=_reward_model(manifests),
        students={name: _student(work, evaluation, manifests, name, settings) for name, settings in students.items()},
        warnings=(*(audit.warnings if audit else ()), *_warnings(manifests, evaluation, judge)),
        versions=library_versions(),
    )
    write_report(work.folder / "report.json", report)
    pairs = _held_out_pairs(work)
    write_page(
        work.folder / "report.html",
        PageData(
            report=report,
            curves={
                name: [(int(entry["step"]), entry["loss"]) for entry in read_log(work.inputs[STUDENT + name])]
                for name, student in students.items()
                if not isinstance(student.objective, Online)
            },
            updates={
                name: _updates(work.inputs[STUDENT + name])
                for name, student in students.items()
                if isinstance(student.objective, Online)
            },
            lengths=_lengths(work),
            samples=choose_samples(_samples(work)),
            reliability=reliability(*_probabilities(pairs)) if pairs else (),
            length_gaps=_by_length_gap(pairs) if pairs else (),
            counts=_counts(manifests),
            config_yaml=config_yaml,
        ),
    )
    return Made(counts={"students": len(students)})


def _updates(folder: Path) -> Updates:
    entries = read_log(folder)
    shown = read_jsonl(folder / SAMPLES, RolloutSample) if (folder / SAMPLES).is_file() else ()
    samples = [
        WrittenSample(one.update, plain_prompt(one.messages), one.text, one.score, one.kl_nats, one.length_tokens) for one in shown
    ]
    return Updates([entry if "update" in entry else trl_entry(entry) for entry in entries], samples)


def _manifest(work: Work, name: str) -> Manifest:
    manifest = read_manifest(work.inputs[name])
    assert manifest is not None, f"{name} is not finished"
    return manifest


def _evaluation(work: Work) -> EvaluationResult:
    if "evaluation" not in work.inputs:
        return EvaluationResult(authors={}, judge=None)
    return EvaluationResult.model_validate_json((work.inputs["evaluation"] / "evaluation.json").read_bytes())


def _figures(evaluation: EvaluationResult, author: str, kind: type[ModelFigures]) -> dict[str, Any]:
    """The figures of an author that this kind of entry shows."""
    figures = evaluation.authors.get(author)
    if figures is None:
        return {}
    return {name: getattr(figures, name) for name in AuthorFigures.model_fields if name in kind.model_fields}


def _student(
    work: Work, evaluation: EvaluationResult, manifests: Mapping[str, Manifest], name: str, settings: Student
) -> StudentFigures:
    return StudentFigures(
        objective=settings.objective.kind,
        model=str((work.inputs[STUDENT + name] / "model").absolute()),
        train_seconds=manifests[STUDENT + name].figures["train_seconds"],
        **_figures(evaluation, name, StudentFigures),
    )


def _judge(kind: str | None, manifests: Mapping[str, Manifest], evaluation: EvaluationResult) -> JudgeFigures | None:
    """What labelling and evaluation asked of the judge together."""
    parts = [manifests[name].figures for name in ("verdicts",) if name in manifests]
    parts += [evaluation.judge] if evaluation.judge else []
    if kind is None or not parts:
        return None
    names = ("calls", "unparsed", "verdicts", "prompt_tokens", "completion_tokens")
    return JudgeFigures(kind=kind, **{name: sum(int(part[name]) for part in parts) for name in names})


def _reward_model(manifests: Mapping[str, Manifest]) -> PreferenceFigures | None:
    figures = manifests["reward_model"].figures["held_out"] if "reward_model" in manifests else None
    return PreferenceFigures.model_validate(figures) if figures else None


def _held_out_pairs(work: Work) -> list[HeldOutPair]:
    return list(read_jsonl(work.inputs["reward_model"] / "held_out.jsonl", HeldOutPair)) if "reward_model" in work.inputs else []


def _probabilities(pairs: Iterable[HeldOutPair]) -> tuple[list[float], list[float]]:
    from scipy.special import expit

    probabilities = [float(expit(pair.difference)) for pair in pairs]
    return probabilities, [1.0] * len(probabilities)


def _by_length_gap(pairs: Sequence[HeldOutPair]) -> list[LengthGapBin]:
    gaps = [pair.length_gap_tokens for pair in pairs]
    return accuracy_by_length_gap([pair.difference for pair in pairs], gaps, LENGTH_GAP_EDGES_TOKENS)


def _lengths(work: Work) -> dict[str, list[int]]:
    lengths: dict[str, list[int]] = defaultdict(list)
    for answer in _scored(work):
        lengths[answer.author].append(answer.length_tokens)
    return dict(lengths)


def _scored(work: Work) -> list[ScoredAnswer]:
    return list(read_jsonl(work.inputs["evaluation"] / "scored.jsonl", ScoredAnswer)) if "evaluation" in work.inputs else []


def _samples(work: Work) -> list[SamplePrompt]:
    """Each held-out prompt with every author's first answer."""
    first: dict[str, dict[str, ScoredAnswer]] = defaultdict(dict)
    for answer in _scored(work):
        first[answer.prompt_id].setdefault(answer.author, answer)
    return [
        SamplePrompt(
            prompt=plain_prompt(next(iter(by_author.values())).messages),
            answers=tuple(SampleAnswer(one.author, one.text, one.truth, one.reward) for one in by_author.values()),
        )
        for by_author in first.values()
    ]


def _counts(manifests: Mapping[str, Manifest]) -> DataCounts:
    def count(stage: str, name: str) -> int | None:
        return manifests[stage].counts.get(name) if stage in manifests else None

    dropped = {f"{stage}: {reason}": number for stage, manifest in manifests.items() for reason, number in manifest.dropped.items()}
    rankings = manifests["rankings"].counts if "rankings" in manifests else None
    return DataCounts(
        train_prompts=count("prompts", "train"),
        held_out_prompts=count("prompts", "held_out"),
        candidates=count("candidates", "candidates"),
        rankings=rankings["train"] + rankings["held_out"] if rankings else None,
        pairs=rankings["pairs"] if rankings else None,
        dropped=dropped,
    )


def _warnings(manifests: Mapping[str, Manifest], evaluation: EvaluationResult, judge: JudgeFigures | None) -> Iterable[str]:
    """What a careful reader should know before believing the table."""
    if judge and judge.verdicts and judge.unparsed / judge.verdicts > 0.05:
        yield f"{judge.unparsed} of the judge's {judge.verdicts} verdicts could not be read; they count for nobody."
    for name, manifest in manifests.items():
        if name.startswith(STUDENT) and not manifest.figures.get("shares_prompt", True):
            yield f"{name}: this model type does not share prompts exactly; separate rows were used (slower, same result)."
        if name.startswith(STUDENT):
            yield from (f"{name.removeprefix(STUDENT)}, {warning}" for warning in manifest.figures.get("warnings", ()))
    start = evaluation.authors.get("start")
    for author, figures in evaluation.authors.items():
        if start and author not in ("start", "teacher") and figures.length_tokens.low > 1.5 * start.length_tokens.high:
            yield f"{author} answers at more than 1.5 times the start's length; judges tend to like long answers."
    reward = _reward_model(manifests)
    if reward and reward.longer_wins and reward.accuracy.low <= reward.longer_wins.mean:
        yield "the reward model is not clearly better than preferring the longer answer."
