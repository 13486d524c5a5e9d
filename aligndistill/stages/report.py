"""report.json and report.html: the run's metrics, and a page that shows them."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligndistill.config.objectives import OnPolicy
from aligndistill.config.students import Student
from aligndistill.evaluation.fidelity import TeacherFidelity
from aligndistill.records import plain_prompt
from aligndistill.reporting.report import (
    ElicitationMetrics,
    JudgeMetrics,
    ModelMetrics,
    QuantizedMetrics,
    Report,
    RewardModelMetrics,
    RoundMetrics,
    StartMetrics,
    StudentMetrics,
    write_report,
)
from aligndistill.reporting.samples import SampleAnswer, SamplePrompt, choose_samples
from aligndistill.stages.audit import AuditResult
from aligndistill.stages.context import StageContext
from aligndistill.stages.evaluation import AuthorMetrics, EvaluationResult, ScoredAnswer
from aligndistill.stages.files import (
    ELICITATION,
    EVALUATION,
    FIDELITY,
    HELD_OUT_PAIRS,
    PROGRESS,
    SAMPLES,
    SCORED,
    HeldOutPair,
    RolloutSample,
    read_log,
)
from aligndistill.stages.models import COPY
from aligndistill.store.artifacts import Manifest, library_versions, read_manifest
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.stage import ENDED, StageResult, collects

if TYPE_CHECKING:
    from aligndistill.evaluation.preference_metrics import LengthGapBin
    from aligndistill.reporting.page import DataCounts, PageData
    from aligndistill.reporting.updates import Updates

LENGTH_GAP_EDGES_TOKENS = (-50, -10, 0, 10, 50)


@collects
def make(
    context: StageContext,
    *,
    run: str,
    seed: int,
    settings: Mapping[str, Student],
    judge: str | None,
    shown: str,
    store: Path,
    rounds: Mapping[str, Mapping[str, Path]],
    students: Mapping[str, Path],
    evaluation: Path | None,
    fidelity: Mapping[str, Path],
    progress: Mapping[str, Path],
    stops: Mapping[str, Path],
    elicited: Mapping[str, Path] | None = None,
) -> StageResult:
    """Collect the metrics of the other stages.

    Args:
        judge: its kind.
        shown: the config, as shown on the page.
        store: the absolute path of the store, since the report names models in it.
        rounds: the stages from prompts to reward model by name, of each round.
        elicited: the steps in which models wrote prompts.
        progress, stops: the promoted student of each round, and whether another followed; empty without rounds.
    """
    from aligndistill.reporting.page import write_page

    # What is shown of the data is that of the last round that was run.
    data = [one for one in rounds.values() if one.keys() >= rounds["1"].keys()][-1]
    manifests = {name: _manifest(folder) for name, folder in data.items()}
    asked = [_manifest(one["verdicts"]).metrics for one in rounds.values() if "verdicts" in one]
    training = {name: _manifest(folder) for name, folder in students.items()}
    evaluated = _evaluation(evaluation)
    judge_metrics = _judge(judge, asked, evaluated)
    audit = AuditResult.model_validate(manifests["audit"].metrics) if "audit" in manifests else None
    report = Report(
        run=run,
        seed=seed,
        start=StartMetrics(**_metrics(evaluated, "start", StartMetrics)),
        teacher=ModelMetrics(**_metrics(evaluated, "teacher", ModelMetrics)) if "teacher" in evaluated.authors else None,
        judge=judge_metrics,
        audit=audit.metrics if audit else None,
        reward_model=_reward_model(manifests),
        students={
            name: _student(name, settings[name], str(store / folder.name / "model"), training[name], evaluated, fidelity)
            for name, folder in students.items()
        },
        rounds=tuple(_rounds(progress, stops)),
        elicitation=_elicitation(elicited or {}),
        warnings=(*(audit.warnings if audit else ()), *_warnings(manifests, training, evaluated, judge_metrics)),
        versions=library_versions(),
    )
    write_report(context.folder / "report.json", report)
    on_policy = {name for name in students if isinstance(settings[name].objective, OnPolicy)}
    counts = _counts({**manifests, **{f"student {name}": manifest for name, manifest in training.items()}})
    page = _page_data(report, counts, shown, data.get("reward_model"), students, on_policy, evaluation)
    write_page(context.folder / "report.html", page)
    return StageResult(counts={"students": len(students)})


def _page_data(
    report: Report,
    counts: "DataCounts",
    shown: str,
    reward_model: Path | None,
    students: Mapping[str, Path],
    on_policy: Collection[str],
    evaluation: Path | None,
) -> "PageData":
    """The data of the page, with the plots' data read from the stages' folders."""
    from aligndistill.evaluation.calibration import reliability
    from aligndistill.reporting.page import PageData

    pairs = list(read_jsonl(reward_model / HELD_OUT_PAIRS, HeldOutPair)) if reward_model else []
    scored = read_jsonl(evaluation / SCORED, ScoredAnswer) if evaluation else ()
    answers = [answer for answer in scored if COPY not in answer.author]
    return PageData(
        report=report,
        curves={
            name: [(int(entry["step"]), entry["loss"]) for entry in read_log(folder)]
            for name, folder in students.items()
            if name not in on_policy
        },
        updates={name: _updates(folder) for name, folder in students.items() if name in on_policy},
        lengths=_lengths(answers),
        samples=choose_samples(_samples(answers)),
        reliability=reliability(*_probabilities(pairs)) if pairs else (),
        length_gaps=_by_length_gap(pairs) if pairs else (),
        counts=counts,
        config_yaml=shown,
    )


def _updates(folder: Path) -> "Updates":
    from aligndistill.reporting.updates import Updates, WrittenSample

    entries = read_log(folder)
    shown = read_jsonl(folder / SAMPLES, RolloutSample) if (folder / SAMPLES).is_file() else ()
    samples = [
        WrittenSample(one.update, plain_prompt(one.messages), one.text, one.score, one.kl_nats, one.length_tokens) for one in shown
    ]
    return Updates([entry if "update" in entry else trl_entry(entry) for entry in entries], samples)


def trl_entry(entry: Mapping[str, float]) -> dict[str, float]:
    """An entry of TRL's log with this package's names of the same metrics. TRL's KL is per token, so it is not among them."""
    names = {"step": "update", "reward": "score", "entropy": "entropy_nats", "completions/mean_length": "length_tokens"}
    return {ours: entry[theirs] for theirs, ours in names.items() if theirs in entry}


def _manifest(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    assert manifest is not None, f"{folder} is not finished"
    return manifest


def _evaluation(folder: Path | None) -> EvaluationResult:
    if folder is None:
        return EvaluationResult(authors={}, judge=None)
    return EvaluationResult.model_validate_json((folder / EVALUATION).read_bytes())


def _student(
    name: str, settings: Student, model: str, training: Manifest, evaluated: EvaluationResult, fidelity: Mapping[str, Path]
) -> StudentMetrics:
    return StudentMetrics(
        objective=settings.objective.kind,
        model=model,
        train_seconds=training.metrics["train_seconds"],
        fidelity=_fidelity(fidelity[name]) if name in fidelity else None,
        quantized=_quantized(evaluated, fidelity, name),
        **_metrics(evaluated, name, StudentMetrics),
    )


def _rounds(progress: Mapping[str, Path], stops: Mapping[str, Path]) -> Iterator[RoundMetrics]:
    for name, folder in progress.items():
        ended = _manifest(stops[name]).metrics.get(ENDED) if name in stops else None
        yield RoundMetrics.model_validate_json((folder / PROGRESS).read_bytes()).model_copy(update={"ended": ended})


def _elicitation(steps: Mapping[str, Path]) -> tuple[ElicitationMetrics, ...]:
    return tuple(ElicitationMetrics.model_validate_json((folder / ELICITATION).read_bytes()) for folder in steps.values())


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


def _judge(kind: str | None, asked: Iterable[Mapping[str, Any]], evaluation: EvaluationResult) -> JudgeMetrics | None:
    """The judge's calls, verdicts and tokens in labelling and evaluation together."""
    parts = [*asked, *([evaluation.judge] if evaluation.judge else [])]
    if kind is None or not parts:
        return None
    names = ("calls", "unparsed", "verdicts", "prompt_tokens", "completion_tokens")
    return JudgeMetrics(kind=kind, **{name: sum(int(part[name]) for part in parts) for name in names})


def _reward_model(manifests: Mapping[str, Manifest]) -> RewardModelMetrics | None:
    metrics = manifests["reward_model"].metrics if "reward_model" in manifests else {}
    if not metrics.get("held_out"):
        return None
    term = metrics.get("length_term")
    return RewardModelMetrics.model_validate({**metrics["held_out"], "length_weight": term["weight"] if term else None})


def _probabilities(pairs: Iterable[HeldOutPair]) -> tuple[list[float], list[float]]:
    from scipy.special import expit

    probabilities = [float(expit(pair.difference)) for pair in pairs]
    return probabilities, [1.0] * len(probabilities)


def _by_length_gap(pairs: Sequence[HeldOutPair]) -> "list[LengthGapBin]":
    from aligndistill.evaluation.calibration import accuracy_by_length_gap

    gaps = [pair.length_gap_tokens for pair in pairs]
    return accuracy_by_length_gap([pair.difference for pair in pairs], gaps, LENGTH_GAP_EDGES_TOKENS)


def _lengths(answers: Iterable[ScoredAnswer]) -> dict[str, list[int]]:
    lengths: dict[str, list[int]] = defaultdict(list)
    for answer in answers:
        lengths[answer.author].append(answer.length_tokens)
    return dict(lengths)


def _samples(answers: Iterable[ScoredAnswer]) -> list[SamplePrompt]:
    """Each held-out prompt with every author's first answer."""
    first: dict[str, dict[str, ScoredAnswer]] = defaultdict(dict)
    for answer in answers:
        first[answer.prompt_id].setdefault(answer.author, answer)
    return [
        SamplePrompt(
            prompt=plain_prompt(next(iter(by_author.values())).messages),
            answers=tuple(SampleAnswer(one.author, one.text, one.truth, one.reward) for one in by_author.values()),
        )
        for by_author in first.values()
    ]


def _counts(manifests: Mapping[str, Manifest]) -> "DataCounts":
    from aligndistill.reporting.page import DataCounts

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


def _warnings(
    manifests: Mapping[str, Manifest], training: Mapping[str, Manifest], evaluation: EvaluationResult, judge: JudgeMetrics | None
) -> Iterable[str]:
    """Warnings about the results."""
    if judge and judge.verdicts and judge.unparsed / judge.verdicts > 0.05:
        yield f"{judge.unparsed} of the judge's {judge.verdicts} verdicts could not be read; they are not counted."
    for name, manifest in training.items():
        if not manifest.metrics.get("shares_prompt", True):
            text = "this model type does not share prompts exactly; separate rows were used (slower, same result)."
            yield f"student {name}: {text}"
        yield from (f"{name}, {warning}" for warning in manifest.metrics.get("warnings", ()))
    start = evaluation.authors.get("start")
    for author, metrics in evaluation.authors.items():
        if start and author not in ("start", "teacher") and metrics.length_tokens.low > 1.5 * start.length_tokens.high:
            yield f"{author} answers at more than 1.5 times the start's length; judges tend to like long answers."
        if metrics.length_warning:
            yield f"{author}: {metrics.length_warning}."
    reward = _reward_model(manifests)
    if reward and reward.longer_wins and reward.accuracy.low <= reward.longer_wins.mean:
        yield "the reward model is not clearly better than preferring the longer answer."
