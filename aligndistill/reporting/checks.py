"""What to check first in a report: results that look good for the wrong reason, or that are incomplete. Rules on its metrics."""

from collections.abc import Iterator, Sequence

from aligndistill.evaluation.against_start import AgainstStart
from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting.report import Check, CheckKind, Report, StudentMetrics
from aligndistill.reporting.writing import number, share, signed, with_interval

WORSE_SHARE = 0.1
"""A student is shown that is worse than the start on at least this share of the prompts."""
DIVERSITY_SHARE = 0.7
"""... whose distinct-2 is below this share of the start's."""
LENGTH_RATIO = 1.2
"""... whose answers are longer than the start's by this factor, or shorter, with the whole interval of the difference."""
UNREADABLE_SHARE = 0.01
"""Unreadable verdicts are shown from this share on; of a student's comparisons with the start, from the first on."""

RULES = (
    "the reward rises but the truth does not (where truth is not measured: the win rate), by the 95% intervals of the paired "
    "differences; or a student has the highest reward, and another is clearly ahead of it by the truth",
    f"a student is worse than the start on {WORSE_SHARE:.0%} of the prompts or more",
    f"distinct-2 is below {DIVERSITY_SHARE:.0%} of the start's",
    f"answers are longer or shorter than the start's by a factor of {LENGTH_RATIO:g} or more",
    f"verdicts are unreadable ({UNREADABLE_SHARE:.0%} or more) or missing",
)

VIEWER_FILTERS = {
    "worse": "worse than start",
    "longer_lost": "longer lost",
    "unreadable": "unreadable",
    "reward_up": "reward up, truth or judge down",
}
"""The filters of the viewer that checks name, in the viewer's words."""


def checks_of(report: Report) -> Iterator[Check]:
    """What the rules find, in their order."""
    for rule in (_reward_without_truth, _worse_than_start, _less_diverse, _other_length):
        for name, student in report.students.items():
            if student.against_start is not None:
                yield from rule(report, name, student, student.against_start)
    yield from _prefers_longer(report)
    yield from _unreadable(report)


TITLES: dict[CheckKind, str] = {
    "reward_without_truth": "Higher reward without higher truth",
    "worse_than_start": "Worse than the start on many prompts",
    "diversity": "Less diverse answers",
    "length": "Longer or shorter answers",
    "unreadable": "Unreadable or missing verdicts",
}


def by_kind(checks: Sequence[Check]) -> list[tuple[str, list[Check]]]:
    """Checks under their titles."""
    return [(title, found) for kind, title in TITLES.items() if (found := [one for one in checks if one.kind == kind])]


def _reward_without_truth(report: Report, name: str, student: StudentMetrics, gain: AgainstStart) -> Iterator[Check]:
    if gain.reward is None or gain.reward.low <= 0:
        return
    rises = f"{name}: the reward rises by {with_interval(gain.reward)} (n = {gain.reward.n})"
    exploited = "it may exploit errors of the reward model"
    if gain.truth is not None and gain.truth.low <= 0:
        text = f"{rises}, the truth does not: {signed(gain.truth)}; {exploited}"
    elif gain.truth is None and student.win_rate is not None and student.win_rate.low <= 0.5:
        text = f"{rises}, but the judge does not prefer its answers: win rate {with_interval(student.win_rate)}; {exploited}"
    elif _has_highest_reward(report, name) and report.leading and report.leading.measure == "truth" and student.truth is not None:
        lead = report.leading
        if name in lead.group or student.of in lead.group:
            return
        text = (
            f"{name} has the highest reward of the students ({_mean(student.reward)}), but its truth, "
            f"{with_interval(student.truth)}, is clearly lower than that of {lead.leader}; {exploited}"
        )
    else:
        return
    yield Check(kind="reward_without_truth", student=name, text=text, samples="reward_up")


def _has_highest_reward(report: Report, name: str) -> bool:
    rewards = {one: metrics.reward.mean for one, metrics in report.students.items() if metrics.reward is not None}
    return len(rewards) > 1 and max(rewards, key=lambda one: rewards[one]) == name


def _worse_than_start(report: Report, name: str, student: StudentMetrics, gain: AgainstStart) -> Iterator[Check]:
    if gain.worse is not None and gain.worse.mean >= WORSE_SHARE:
        by = "by the truth" if gain.truth is not None else "by the judge"
        total = f" of {gain.worse.n:,}"
        on = share(gain.worse).removesuffix(total) + total  # a share of few is a count of them already
        text = f"{name} is worse than the start on {on} prompts, {by}"
        yield Check(kind="worse_than_start", student=name, text=text, samples="worse")


def _less_diverse(report: Report, name: str, student: StudentMetrics, gain: AgainstStart) -> Iterator[Check]:
    before, after = report.start.distinct_2, student.distinct_2
    if before and after is not None and after < DIVERSITY_SHARE * before:
        text = f"{name} is less diverse: distinct-2 falls from {number(before)} to {number(after)} ({after / before - 1:+.0%})"
        yield Check(kind="diversity", student=name, text=text)


def _other_length(report: Report, name: str, student: StudentMetrics, gain: AgainstStart) -> Iterator[Check]:
    before, after, change = report.start.length_tokens, student.length_tokens, gain.length_tokens
    if before is None or after is None or change is None or not before.mean or not after.mean:
        return
    ratio = after.mean / before.mean
    if not (ratio >= LENGTH_RATIO and change.low > 0) and not (ratio <= 1 / LENGTH_RATIO and change.high < 0):
        return
    word = "longer" if ratio > 1 else "shorter"
    text = f"{name} writes {word} answers than the start: {number(after.mean)} tokens, not {number(before.mean)} ({ratio - 1:+.0%})"
    if student.win_rate is not None:
        text += f"; win rate {with_interval(student.win_rate)}"
        text += f", at equal length {with_interval(student.win_rate_lc)}" if student.win_rate_lc else ", at equal length unknown"
    yield Check(kind="length", student=name, text=text, samples="longer_lost" if ratio > 1 else "")


def _prefers_longer(report: Report) -> Iterator[Check]:
    """What the judge thinks of length, where a student's answers are longer."""
    audit, before = report.audit, report.start.length_tokens
    after = [one.length_tokens.mean for one in report.students.values() if one.length_tokens is not None]
    if audit is None or audit.longer_wins is None or before is None or max(after, default=0.0) < LENGTH_RATIO * before.mean:
        return
    chance = f" (by chance {share(audit.longer_wins_by_chance)})" if audit.longer_wins_by_chance else ""
    yield Check(kind="length", text=f"The judge prefers the longer answer in {share(audit.longer_wins)} of its choices{chance}")


def _unreadable(report: Report) -> Iterator[Check]:
    judge = report.judge
    if judge is not None and judge.verdicts and judge.unparsed / judge.verdicts >= UNREADABLE_SHARE:
        text = f"{judge.unparsed:,} of the judge's {judge.verdicts:,} verdicts could not be read; they are not counted"
        yield Check(kind="unreadable", text=text, samples="unreadable")
    for name, student in report.students.items():
        one = student.against_start
        if one is not None and one.unreadable:
            asked = one.compared + one.unreadable
            text = f"{name}: {one.unreadable:,} of {asked:,} comparisons with the start have no readable verdict"
            yield Check(kind="unreadable", student=name, text=text, samples="unreadable")


def _mean(figure: Mean | None) -> str:
    return "not measured" if figure is None else number(figure.mean)
