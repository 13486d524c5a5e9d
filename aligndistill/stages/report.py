"""report.json and report.html: the run's metrics, and a page that shows them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligndistill.config.objectives import OnPolicy
from aligndistill.config.students import Student
from aligndistill.evaluation.against_start import AgainstStart
from aligndistill.evaluation.fidelity import TeacherFidelity
from aligndistill.processes.devices import machine
from aligndistill.reporting.checks import checks_of
from aligndistill.reporting.provenance import Origins
from aligndistill.reporting.report import (
    ChainModel,
    ModelMetrics,
    OwnStartMetrics,
    QuantizedMetrics,
    Report,
    RewardModelMetrics,
    StartMetrics,
    StudentMetrics,
    write_report,
)
from aligndistill.reporting.seeds import over_seeds
from aligndistill.reporting.written_data import DemonstrationMetrics
from aligndistill.stages.audit import AuditResult
from aligndistill.stages.chains import RunModel
from aligndistill.stages.context import StageContext
from aligndistill.stages.evaluation import AuthorMetrics, EvaluationResult
from aligndistill.stages.files import (
    EVALUATION,
    FIDELITY,
    SCORED,
)
from aligndistill.stages.judge_work import judge_work
from aligndistill.stages.models import COPY
from aligndistill.stages.report_page import counted, page_data
from aligndistill.stages.round_metrics import read_elicitation, round_metrics
from aligndistill.stages.scored_answers import ScoredAnswer, beside_start
from aligndistill.store.artifacts import Manifest, library_versions, read_manifest
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.stage import StageResult, collects

if TYPE_CHECKING:
    from aligndistill.reporting.page import DataCounts

STUDENTS = "students"
"""In the folder of a run, the links to its students' models."""
MACHINE = "machine"
"""The metric of this stage that says on which machine it was run."""


@collects
def make(
    context: StageContext,
    *,
    run: str,
    seed: int,
    settings: Mapping[str, Student],
    judge: str | None,
    evaluation_judge: str | None,
    chain: Sequence[RunModel],
    shown: str,
    origins: Mapping[str, Any],
    rounds: Mapping[str, Mapping[str, Path]],
    students: Mapping[str, Path],
    evaluation: Path | None,
    fidelity: Mapping[str, Path],
    progress: Mapping[str, Path],
    stops: Mapping[str, Path],
    orders: Mapping[str, Path],
    elicited: Mapping[str, Path] | None = None,
    promoted: Mapping[str, str] | None = None,
) -> StageResult:
    """Collect the metrics of the other stages.

    Args:
        judge, evaluation_judge: the kinds of the judge that labels, and of the one that compares held-out answers.
        chain, origins: the models of the run and of the runs that they come from; the fields of `Origins`.
        shown: the config, as shown on the page.
        rounds: the stages from prompts to reward model by name, of each round.
            elicited: the steps in which models wrote prompts.
        progress, promoted, stops, orders: each round's promoted student, its name, whether another followed, or had an order.
    """
    data = [one for one in rounds.values() if one.keys() >= rounds["1"].keys()][-1]  # shown is that of the last finished round
    manifests, training = _manifests(data), _manifests(students)
    evaluated = _evaluation(evaluation)
    teacher = _metrics(evaluated, "teacher", ModelMetrics)
    scored = list(read_jsonl(evaluation / SCORED, ScoredAnswer)) if evaluation else []
    audit = AuditResult.model_validate(manifests["audit"].metrics) if "audit" in manifests else None
    report = Report(
        run=run,
        seed=seed,
        start=StartMetrics(**_metrics(evaluated, "start", StartMetrics)),
        starts={f"start-{name}": _own_start(evaluated, name) for name, one in settings.items() if one.start is not None},
        teacher=ModelMetrics(**teacher) if teacher else None,
        judge=judge_work(judge, evaluation_judge, rounds, evaluation),
        audit=audit.metrics if audit else None,
        demonstrations=_demonstrations(manifests),
        reward_model=_reward_model(manifests),
        students={name: _student(name, settings[name], one, evaluated, fidelity, scored) for name, one in students.items()},
        leading=evaluated.leading,
        rounds=tuple(round_metrics(progress, stops, orders, rounds, promoted or {}, elicited or {})),
        elicitation=tuple(map(read_elicitation, (elicited or {}).values())),
        chain=tuple(ChainModel(**asdict(one)) for one in chain),
        warnings=(*(audit.warnings if audit else ()), *_warnings(manifests, training, evaluated)),
        versions=library_versions(),
        origins=Origins.model_validate(origins),
    )
    report = report.model_copy(update={"over_seeds": over_seeds(report.students), "checks": tuple(checks_of(report))})
    counts = counted({**manifests, **{f"student {name}": manifest for name, manifest in training.items()}})
    _write(context.folder, report, counts, shown, data.get("reward_model"), students, settings, scored)
    return StageResult(counts={"students": len(students)}, metrics={MACHINE: machine()})


def _write(
    folder: Path,
    report: Report,
    counts: "DataCounts",
    shown: str,
    reward_model: Path | None,
    students: Mapping[str, Path],
    settings: Mapping[str, Student],
    scored: Sequence[ScoredAnswer],
) -> None:
    from aligndistill.reporting.page import write_page

    on_policy = {name for name in students if isinstance(settings[name].objective, OnPolicy)}
    write_report(folder / "report.json", report)
    write_page(folder / "report.html", page_data(report, counts, shown, reward_model, students, on_policy, scored))


def _manifests(folders: Mapping[str, Path]) -> dict[str, Manifest]:
    return {name: _manifest(folder) for name, folder in folders.items()}


def _manifest(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    assert manifest is not None, f"{folder} is not finished"
    return manifest


def _evaluation(folder: Path | None) -> EvaluationResult:
    if folder is None:
        return EvaluationResult(authors={}, judge=None)
    return EvaluationResult.model_validate_json((folder / EVALUATION).read_bytes())


def _student(
    name: str,
    settings: Student,
    folder: Path,
    evaluated: EvaluationResult,
    fidelity: Mapping[str, Path],
    scored: Sequence[ScoredAnswer],
) -> StudentMetrics:
    return StudentMetrics(
        objective=settings.objective.kind,
        seed=settings.seed,
        of=name.removesuffix(f"-s{settings.seed}") if settings.seed is not None else None,
        model=f"{STUDENTS}/{name}",
        train_seconds=_manifest(folder).metrics["train_seconds"],
        fidelity=_fidelity(fidelity[name]) if name in fidelity else None,
        quantized=_quantized(evaluated, fidelity, name),
        against_start=_against_start(name, scored, evaluated) if any(one.author == name for one in scored) else None,
        **_metrics(evaluated, name, StudentMetrics),
    )


def _own_start(evaluated: EvaluationResult, student: str) -> OwnStartMetrics:
    return OwnStartMetrics(**_metrics(evaluated, f"start-{student}", OwnStartMetrics))


def _fidelity(folder: Path) -> TeacherFidelity:
    return TeacherFidelity.model_validate_json((folder / FIDELITY).read_bytes())


def _quantized(evaluation: EvaluationResult, fidelity: Mapping[str, Path], student: str) -> QuantizedMetrics | None:
    for copy, folder in fidelity.items():
        name, _, kind = copy.partition(COPY)
        if name == student and kind:
            return QuantizedMetrics(kind=kind, fidelity=_fidelity(folder), **_metrics(evaluation, copy, QuantizedMetrics))
    return None


def _metrics(evaluation: EvaluationResult, author: str, kind: type[ModelMetrics | QuantizedMetrics]) -> dict[str, Any]:
    """The metrics of an author that this kind of entry has."""
    metrics = evaluation.authors.get(author)
    if metrics is None:
        return {}
    return {name: getattr(metrics, name) for name in AuthorMetrics.model_fields if name in kind.model_fields}


def _against_start(name: str, scored: Sequence[ScoredAnswer], evaluated: EvaluationResult) -> AgainstStart:
    ours, theirs = ([one for one in scored if one.author == author] for author in (name, "start"))
    return beside_start(ours, theirs, judged=evaluated.judge is not None)


def _demonstrations(manifests: Mapping[str, Manifest]) -> DemonstrationMetrics | None:
    """Of those that a model wrote in this run."""
    written = manifests.get("demonstrations")
    if written is None:
        return None
    return DemonstrationMetrics(
        counts=written.counts, dropped=written.dropped, by_accepted=written.metrics.get("accepted_by_difficulty", {})
    )


def _reward_model(manifests: Mapping[str, Manifest]) -> RewardModelMetrics | None:
    metrics = manifests["reward_model"].metrics if "reward_model" in manifests else {}
    if not metrics.get("held_out"):
        return None
    term = metrics.get("length_term")
    more = {"length_weight": term["weight"] if term else None, "ensemble": metrics.get("ensemble")}
    return RewardModelMetrics.model_validate({**metrics["held_out"], **more})


def _warnings(manifests: Mapping[str, Manifest], training: Mapping[str, Manifest], evaluation: EvaluationResult) -> Iterable[str]:
    """Warnings about the results, besides what `reporting/checks.py` finds."""
    for name, manifest in training.items():
        if not manifest.metrics.get("shares_prompt", True):
            text = "this model type does not share prompts exactly; separate rows were used (slower, same result)."
            yield f"student {name}: {text}"
        yield from (f"{name}, {warning}" for warning in manifest.metrics.get("warnings", ()))
    for author, metrics in evaluation.authors.items():
        if metrics.length_warning:
            yield f"{author}: {metrics.length_warning}."
    reward = _reward_model(manifests)
    if reward and reward.longer_wins and reward.accuracy.low <= reward.longer_wins.mean:
        yield "the reward model is not clearly better than preferring the longer answer."
