"""The metrics of a run, as `report.json`: the interface for tools that read it. Metrics that were not measured are null."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, FiniteFloat, ValidationError

from aligndistill.errors import DataError
from aligndistill.evaluation.against_start import AgainstStart
from aligndistill.evaluation.audit import AuditMetrics
from aligndistill.evaluation.fidelity import TeacherFidelity
from aligndistill.evaluation.intervals import Mean, Spread
from aligndistill.evaluation.leading import Leading, Measure
from aligndistill.evaluation.preference_metrics import PreferenceMetrics
from aligndistill.evaluation.votes import VoteMetrics
from aligndistill.records import Record
from aligndistill.reporting.about import About
from aligndistill.reporting.judge_metrics import JudgeMetrics
from aligndistill.reporting.provenance import Origins
from aligndistill.reporting.written_data import DemonstrationMetrics, ElicitationMetrics


class ModelMetrics(Record):
    """Metrics of a model's answers to the held-out prompts.

    Attributes:
        truth: score by the configured truth function.
        length_tokens: length of the answers, tokens of the model's own tokenizer.
        reward: score by the reward model.
        distinct_2: distinct bigrams over all bigrams of all answers.
        repetition_4: share of an answer's 4-grams that repeat an earlier one.
    """

    truth: Mean | None = None
    length_tokens: Mean | None = None
    reward: Mean | None = None
    distinct_2: FiniteFloat | None = None
    repetition_4: Mean | None = None


class StartMetrics(ModelMetrics):
    """Metrics of the start, the student before alignment. `win_rate_teacher`: how often the judge prefers it to the teacher."""

    win_rate_teacher: Mean | None = None


class OwnStartMetrics(ModelMetrics):
    """Metrics of the start of one student alone; its win rates are over the run's start, and over the teacher."""

    win_rate: Mean | None = None
    win_rate_lc: Mean | None = None
    win_rate_teacher: Mean | None = None


class QuantizedMetrics(Record):
    """What a student is with its linear layers quantised, as it may be deployed.

    Attributes:
        kind: the bits, such as `int8`.
        truth, length_tokens, reward, win_rate, win_rate_lc: as of the student, of the quantised copy's own answers.
        fidelity: how closely the copy follows the student, token by token; the student is the teacher in it.
    """

    kind: str
    truth: Mean | None = None
    length_tokens: Mean | None = None
    reward: Mean | None = None
    win_rate: Mean | None = None
    win_rate_lc: Mean | None = None
    fidelity: TeacherFidelity


class StudentMetrics(ModelMetrics):
    """Metrics of a trained student.

    Attributes:
        objective: the objective that it was trained with.
        model: the folder that `from_pretrained` loads, relative to the run's.
        seed, of: with `seeds`, the seed of its training and its name in the config.
        win_rate: how often the judge prefers its answer to the start's.
        win_rate_lc: the same, estimated for answers of equal length.
        win_rate_style: the same, estimated for answers of equal length and style.
        win_rate_teacher: how often the judge prefers its answer to the teacher's.
        win_rate_own: how often the judge prefers its answer to that of its own start; None if that is the run's.
        kl_nats: KL(student || start) of a response, nats; the start is its own if it has one.
        fidelity: how closely it follows the teacher, token by token.
        quantized: the same of its quantised copy.
        train_seconds: wall time of its training.
        against_start: its answers beside the start's, prompt by prompt.
    """

    objective: str
    model: str
    seed: int | None = None
    of: str | None = None
    win_rate: Mean | None = None
    win_rate_lc: Mean | None = None
    win_rate_style: Mean | None = None
    win_rate_teacher: Mean | None = None
    win_rate_own: Mean | None = None
    kl_nats: Mean | None = None
    fidelity: TeacherFidelity | None = None
    quantized: QuantizedMetrics | None = None
    train_seconds: FiniteFloat | None = None
    against_start: AgainstStart | None = None


class EnsembleMetrics(Record):
    """Members of an ensemble on held-out pairs.

    Attributes:
        members: how many there are.
        disagreement: the standard deviation over the members of a pair's reward difference, mean over pairs.
        disagreement_right, disagreement_wrong: the same of pairs that the mean reward orders rightly, or wrongly; None if none.
        ece: the calibration error of the mean of the members' probabilities; `RewardModelMetrics.ece` is that of the mean reward.
    """

    members: int
    disagreement: FiniteFloat
    disagreement_right: FiniteFloat | None
    disagreement_wrong: FiniteFloat | None
    ece: Mean


class RewardModelMetrics(PreferenceMetrics):
    """Metrics of the run's reward model on held-out pairs.

    Attributes:
        length_weight: of the length term in its training (`reward_model.length_debiased`), logits; None without one. The reward
            that was measured has no such term.
        ensemble: how far its members are apart; None without an ensemble.
    """

    length_weight: FiniteFloat | None = None
    ensemble: EnsembleMetrics | None = None


class NewPrompts(Record):
    """The prompts that models wrote for a round, beside its other training prompts.

    Attributes:
        prompts: how many of them the filters kept.
        accept_rate, difficulty: of those, as in `RoundMetrics`; None without one that has them.
        accept_rate_of_others, difficulty_of_others: of the round's other training prompts.
    """

    prompts: int
    accept_rate: Mean | None = None
    difficulty: Mean | None = None
    accept_rate_of_others: Mean | None = None
    difficulty_of_others: Mean | None = None


class RoundMetrics(Record):
    """A round's promoted student on the held-out prompts.

    Attributes:
        student: its name among the report's students.
        win_rate: over the model that the round started from.
        win_rate_lc: the same between answers of equal length; None if not measured.
        length_growth: its mean length over that of the run's start.
        kl_nats: from the run's start, per answer; None for a server.
        pairs: the round's training pairs.
        canaries, own_answers_win, own_answers_win_by_labels, agreement: of the round's audit: known-bad answers that the judge
            prefers, how often its own answers win, by it and by the labels or the truth, and its agreement with them.
        second_agreement: of the same: its agreement with the second judge, the same in every round.
        accept_rate, difficulty: of the round's training prompts, for the student that the round started from: the mean probability
            that the judge prefers its answer to the teacher's (or to the best one), and how far it is behind, on logits where the
            teacher wrote candidates (see `preferences/difficulty.py`).
        new_prompts: of the round's training prompts those that models wrote for it (`weak_seeds`); None if they wrote none.
        ended: why no further round follows; None if one may.
    """

    round: str
    win_rate: Mean | None
    win_rate_lc: Mean | None
    length_growth: float
    kl_nats: Mean | None
    pairs: int
    ended: str | None
    student: str | None = None
    canaries: Mean | None = None
    own_answers_win: Mean | None = None
    own_answers_win_by_labels: Mean | None = None
    agreement: Mean | None = None
    second_agreement: Mean | None = None
    accept_rate: Mean | None = None
    difficulty: Mean | None = None
    new_prompts: NewPrompts | None = Field(default=None, exclude_if=lambda new: new is None)


class ChainModel(Record):
    """Where a model comes from.

    Attributes:
        run: the run that uses it: this one, or one whose student is a model of this one.
        role: its name there, such as `teacher`.
        model: a folder, a name, a server's model, `from scratch`, or `RUN: STUDENT`.
    """

    run: str
    role: str
    model: str


CheckKind = Literal["reward_without_truth", "worse_than_start", "diversity", "length", "unreadable"]


class Check(Record):
    """Something to look at before a result is believed.

    Attributes:
        kind: the rule that found it (`reporting/checks.py`).
        student: whom it is about; None if it is about the judge.
        samples: the filter of the viewer's samples that shows such prompts; empty if there is none.
    """

    kind: CheckKind
    student: str | None = None
    text: str
    samples: str = ""


class Report(Record):
    """The report of a run.

    Attributes:
        students: in the order of the config.
        starts: students' own, by the name `start-STUDENT`.
        checks: what to look at first.
        about: where, when and at what cost the run was made; None in a report that no run's folder has taken yet.
        votes: what people's blind votes say of the judge; None without votes.
        made_of: a hash of what the run's folder made this file of.
    """

    run: str
    seed: int
    start: StartMetrics = StartMetrics()
    starts: Mapping[str, OwnStartMetrics] = {}
    teacher: ModelMetrics | None = None
    judge: JudgeMetrics | None = None
    audit: AuditMetrics | None = None
    demonstrations: DemonstrationMetrics | None = None
    reward_model: RewardModelMetrics | None = None
    students: Mapping[str, StudentMetrics] = {}
    leading: Leading | None = None
    over_seeds: Mapping[str, Mapping[str, Spread]] = {}
    rounds: tuple[RoundMetrics, ...] = ()
    elicitation: tuple[ElicitationMetrics, ...] = Field(default=(), exclude_if=lambda steps: not steps)
    chain: tuple[ChainModel, ...] = ()
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()
    about: About | None = None
    votes: VoteMetrics | None = None
    made_of: str = ""
    versions: Mapping[str, str] = {}
    origins: Origins = Origins()


def write_report(path: Path, report: Report) -> None:
    """Write `report.json`."""
    path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_report(path: Path) -> Report:
    """Read `report.json`.

    Raises:
        DataError: there is no such file, or it is not a report.
    """
    try:
        return Report.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"there is no report at {path}: give the folder of a finished run.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise DataError(
            f"{path} is not a report that this version reads ({where}: {first['msg']}). Run the config again to rewrite it."
        ) from None


def leading_students(report: Report) -> tuple[str, ...]:
    """The students to mark: those that lead on prompts that they were not chosen on, with all their seeds; the leader is the first.

    Where that was not measured, the best on all prompts.
    """
    group = report.leading.group if report.leading is not None else ()
    found = tuple(name for lead in group for name, student in report.students.items() if lead in (name, student.of))
    best = best_student(report.students)
    return found if found or best is None else (best,)


def best_student(students: Mapping[str, StudentMetrics]) -> str | None:
    """The student with the highest mean of `best_measure`; None if there is none."""
    measure = best_measure(students)
    return None if measure is None else max(students, key=lambda name: getattr(students[name], measure).mean)


def best_measure(students: Mapping[str, StudentMetrics]) -> Measure | None:
    """Truth, or, if not all students have it, the win rate at equal length, or the win rate; None if not all have one of them."""
    measures: tuple[Measure, ...] = ("truth", "win_rate_lc", "win_rate")
    return next((one for one in measures if students and all(getattr(student, one) for student in students.values())), None)
