"""Metrics of a judge's reliability, with intervals, as pure functions of its verdicts.

Unless stated otherwise, intervals are bootstraps over prompts, because the verdicts on one prompt are not independent.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from aligndistill.evaluation.intervals import FloatArray, Mean, bootstrap_totals, share, wilson
from aligndistill.evaluation.wins import by_prompt
from aligndistill.records import Canary, CanaryKind, Candidate, Comparison, Grade, Record, Verdict, group_by_prompt, is_unparsed

Labels = Mapping[str, Mapping[tuple[str, str], float]]
"""Prompt id -> two candidates' ids, the lower one first -> P(the first is better) by people or a truth function; 1/2 is a tie."""

SHUFFLES = 400


class LabelMetrics(Record):
    """Agreement of the judge's choices with independent labels, over the pairs that the labels decide.

    Attributes:
        agreement: share of pairs on which the judge agrees with the labels; its ties count half.
        kappa: agreement beyond chance (Cohen 1960); a tie of the judge counts as disagreement.
        longer_wins: how often the longer answer is better by the labels: a baseline for `agreement`.
    """

    agreement: Mean
    kappa: Mean
    longer_wins: Mean | None


class AuditMetrics(Record):
    """Metrics of a judge; None where there are no data for one.

    Attributes:
        verdicts, prompts: their numbers.
        unparsed: verdicts that could not be parsed.
        label_mass: median probability of all labels together as the first token, of the verdicts read from log-probabilities.
        order_flips: pairs whose winner changed with the order, of the pairs parsed in both orders.
        first_position: decided comparisons won by the answer shown first; 0.5 for a judge without position bias.
        longer_wins: decided pairs won by the longer answer (characters), of those whose lengths differ.
        longer_wins_by_chance: the same with each prompt's lengths permuted at random: the range without length bias.
        intransitive: share of triples of answers, with all pairs decided, whose choices form a cycle.
        self_consistency: share of questions asked twice with the same verdict.
        own_answers_win: how often the judge's own answers beat others; ties count half.
        own_answers_win_by_labels: the same by the labels: the excess of `own_answers_win` over it is self-preference.
        revisions_preferred: how often a revision beats the answer that it was made from; ties count half.
        revisions_preferred_by_labels: the same by the labels.
        panel_agreement: how often two judges of a panel agree on a pair.
        second_agreement: how often the judge agrees with the second judge, over the pairs that both were asked about and the second
            one decides; the judge's ties count half; Wilson interval, as there is one pair a prompt.
        canaries: how often the judge prefers known-bad answers; ties count half; Wilson interval.
        canaries_by_kind: the same by kind.
    """

    verdicts: int
    prompts: int
    unparsed: Mean | None = None
    label_mass: float | None = None
    order_flips: Mean | None = None
    first_position: Mean | None = None
    longer_wins: Mean | None = None
    longer_wins_by_chance: Mean | None = None
    intransitive: Mean | None = None
    self_consistency: Mean | None = None
    own_answers_win: Mean | None = None
    own_answers_win_by_labels: Mean | None = None
    revisions_preferred: Mean | None = None
    revisions_preferred_by_labels: Mean | None = None
    panel_agreement: Mean | None = None
    labels: LabelMetrics | None = None
    second_agreement: Mean | None = None
    canaries: Mean | None = None
    canaries_by_kind: Mapping[CanaryKind, Mean] = {}


@dataclass(frozen=True)
class Evidence:
    """The input of an audit.

    Attributes:
        verdicts: the judge's verdicts on `candidates`.
        repeats: verdicts on some of the same questions, asked again.
        canaries: known-bad answers with their verdicts.
        labels: of pairs, by people or the truth function; None or empty without any.
        own_author: the author whose model is also the judge; None if there is none.
        second: another judge's verdicts on some of the same pairs.
    """

    verdicts: Sequence[Verdict]
    candidates: Sequence[Candidate]
    repeats: Sequence[Verdict] = ()
    canaries: Sequence[Canary] = ()
    labels: Labels | None = None
    own_author: str | None = None
    second: Sequence[Verdict] = ()


@dataclass(frozen=True)
class _Choice:
    """A judge's choice on a pair: P(one beats other) over all orders and samples. `one` < `other`."""

    prompt_id: str
    one: str
    other: str
    probability: float

    @property
    def sign(self) -> int:
        return (self.probability > 0.5) - (self.probability < 0.5)


def audit(evidence: Evidence) -> AuditMetrics:
    """All metrics that the evidence allows."""
    asked = list(_asked(evidence.verdicts))
    comparisons = [verdict for verdict in evidence.verdicts if isinstance(verdict, Comparison)]
    shown = [verdict for verdict in asked if isinstance(verdict, Comparison)]
    choices = list(_choices(evidence.verdicts))
    text_of = {candidate.id: candidate.text for candidate in evidence.candidates}
    author_of = {candidate.id: candidate.author for candidate in evidence.candidates}
    labelled = list(_labelled(choices, evidence.labels or {}))
    own = evidence.own_author
    original_of = {candidate.id: candidate.revises for candidate in evidence.candidates if candidate.revises}
    masses = [verdict.label_mass for verdict in asked if verdict.label_mass is not None]
    return AuditMetrics(
        verdicts=len(evidence.verdicts),
        prompts=len({verdict.prompt_id for verdict in evidence.verdicts}),
        unparsed=share((verdict.prompt_id, is_unparsed(verdict)) for verdict in asked),
        label_mass=median(masses) if masses else None,
        order_flips=share(_flips(shown)),
        first_position=share((one.prompt_id, one.outcome == "first") for one in shown if one.outcome in ("first", "second")),
        longer_wins=share(_longer(choices, text_of)),
        longer_wins_by_chance=_longer_by_chance(choices, text_of),
        intransitive=share(_intransitive(list(_choices(comparisons)))),
        self_consistency=share(_self_consistency(asked, list(_asked(evidence.repeats)))),
        own_answers_win=share(_self_preference(choices, author_of, own)) if own else None,
        own_answers_win_by_labels=share(_self_preference([label for _, label in labelled], author_of, own)) if own else None,
        revisions_preferred=share(_revisions(choices, original_of)),
        revisions_preferred_by_labels=share(_revisions([label for _, label in labelled], original_of)),
        panel_agreement=share(_panel(asked)),
        labels=_label_metrics(labelled, text_of) if labelled else None,
        second_agreement=_agreement(choices, _choices(evidence.second)),
        canaries=_canaries(evidence.canaries),
        canaries_by_kind={
            kind: rate
            for kind in dict.fromkeys(canary.kind for canary in evidence.canaries)
            if (rate := _canaries([canary for canary in evidence.canaries if canary.kind == kind]))
        },
    )


# ----------------------------------------------------------------------------------------------------- single metrics


def _asked(verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    """The individual verdicts: for a panel those of its members, each once (a grade can be part of several)."""
    graded: set[tuple[str, str, str]] = set()
    for verdict in verdicts:
        for one in verdict.members if isinstance(verdict, Comparison) and verdict.members else (verdict,):
            key = (one.prompt_id, one.judge, one.candidate) if isinstance(one, Grade) and one is not verdict else None
            if key is None or key not in graded:
                graded |= {key} if key is not None else set()
                yield one


def _choices(verdicts: Iterable[Verdict]) -> Iterator[_Choice]:
    for prompt, known in by_prompt(verdicts).items():
        for one, other in known.pairs:
            probability = known.win_probability(one, other)
            if probability is not None:
                yield _Choice(prompt, one, other, probability)


def _flips(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, bool]]:
    outcome_of = {
        (one.prompt_id, one.judge, one.first, one.second): one.outcome for one in comparisons if one.outcome != "unparsed"
    }
    for (prompt, judge, first, second), outcome in outcome_of.items():
        swapped = outcome_of.get((prompt, judge, second, first))
        if first < second and swapped is not None:  # each pair occurs twice
            yield prompt, outcome == swapped != "tie"


def _longer(choices: Iterable[_Choice], text_of: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    for choice in choices:
        longer = _longer_sign(choice, text_of)
        if choice.sign and longer:
            yield choice.prompt_id, choice.sign == longer


def _longer_sign(choice: _Choice, text_of: Mapping[str, str]) -> int:
    one, other = len(text_of[choice.one]), len(text_of[choice.other])
    return (one > other) - (one < other)


def _longer_by_chance(choices: Iterable[_Choice], text_of: Mapping[str, str]) -> Mean | None:
    import numpy as np  # imported late: this module is imported to build a pipeline

    of_prompt = group_by_prompt(choice for choice in choices if choice.sign)
    generator = np.random.default_rng(0)
    longer_won, differed = np.zeros(SHUFFLES), np.zeros(SHUFFLES)
    for some in of_prompt.values():
        place = {identity: index for index, identity in enumerate(sorted({one for c in some for one in (c.one, c.other)}))}
        lengths_K = np.array([len(text_of[identity]) for identity in place])
        lengths_RK = generator.permuted(np.tile(lengths_K, (SHUFFLES, 1)), axis=1)
        winners = [place[c.one if c.sign > 0 else c.other] for c in some]
        losers = [place[c.other if c.sign > 0 else c.one] for c in some]
        gaps_RP = lengths_RK[:, winners] - lengths_RK[:, losers]
        longer_won += (gaps_RP > 0).sum(axis=1)
        differed += (gaps_RP != 0).sum(axis=1)
    if not differed.all():
        return None
    shares_R = longer_won / differed
    low, high = np.quantile(shares_R, [0.025, 0.975])
    return Mean(mean=float(shares_R.mean()), low=float(low), high=float(high), n=len(of_prompt))


def _intransitive(choices: Sequence[_Choice]) -> Iterator[tuple[str, bool]]:
    of_prompt: dict[str, dict[tuple[str, str], int]] = defaultdict(dict)
    for choice in choices:
        if choice.sign:
            of_prompt[choice.prompt_id][choice.one, choice.other] = choice.sign
    for prompt, sign_of in of_prompt.items():
        for a, b, c in combinations(sorted({one for pair in sign_of for one in pair}), 3):
            if (a, b) in sign_of and (b, c) in sign_of and (a, c) in sign_of:
                yield prompt, sign_of[a, b] == sign_of[b, c] != sign_of[a, c]


def _self_consistency(verdicts: Iterable[Verdict], repeats: Sequence[Verdict]) -> Iterator[tuple[str, bool]]:
    """Whether repeated comparisons have the same outcome, or repeated grades the same order; unparsed ones are ignored."""
    asked = {(one.prompt_id, one.judge, one.first, one.second): one.outcome for one in verdicts if isinstance(one, Comparison)}
    for repeat in repeats:
        if isinstance(repeat, Comparison):
            before = asked.get((repeat.prompt_id, repeat.judge, repeat.first, repeat.second), "unparsed")
            if "unparsed" not in (before, repeat.outcome):
                yield repeat.prompt_id, before == repeat.outcome
    graded = {(c.prompt_id, c.one, c.other): c.sign for c in _choices(v for v in verdicts if isinstance(v, Grade))}
    for again in _choices(v for v in repeats if isinstance(v, Grade)):
        sign = graded.get((again.prompt_id, again.one, again.other))
        if sign is not None:
            yield again.prompt_id, sign == again.sign


def _self_preference(choices: Iterable[_Choice], author_of: Mapping[str, str], own: str) -> Iterator[tuple[str, float]]:
    for choice in choices:
        ours = [author_of[candidate] == own for candidate in (choice.one, choice.other)]
        if sum(ours) == 1:
            yield choice.prompt_id, (1 + choice.sign * (1 if ours[0] else -1)) / 2


def _revisions(choices: Iterable[_Choice], original_of: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for choice in choices:
        if original_of.get(choice.one) == choice.other:
            yield choice.prompt_id, (1 + choice.sign) / 2
        elif original_of.get(choice.other) == choice.one:
            yield choice.prompt_id, (1 - choice.sign) / 2


def _panel(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, bool]]:
    of_judge: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        of_judge[verdict.judge].append(verdict)
    if len(of_judge) < 2:  # nothing to agree on, and much to count
        return
    signs = [{(c.prompt_id, c.one, c.other): c.sign for c in _choices(some)} for some in of_judge.values()]
    for first, second in combinations(signs, 2):
        for pair in first.keys() & second.keys():
            yield pair[0], first[pair] == second[pair]


def _agreement(choices: Iterable[_Choice], second: Iterable[_Choice]) -> Mean | None:
    other = {(one.prompt_id, one.one, one.other): one.sign for one in second if one.sign}
    signs = [(one.sign, other.get((one.prompt_id, one.one, one.other), 0)) for one in choices]
    agreed = [(1 + ours * theirs) / 2 for ours, theirs in signs if theirs]
    return wilson(sum(agreed), len(agreed)) if agreed else None


def _canaries(canaries: Sequence[Canary]) -> Mean | None:
    preferred = []
    for canary in canaries:
        for known in by_prompt(canary.verdicts).values():
            probability = known.win_probability(canary.bad.id, canary.reference.id)
            if probability is not None:
                preferred.append((1 + (probability > 0.5) - (probability < 0.5)) / 2)
    return wilson(sum(preferred), len(preferred)) if preferred else None


# ------------------------------------------------------------------------------------------------------------- labels


def _labelled(choices: Iterable[_Choice], labels: Labels) -> Iterator[tuple[_Choice, _Choice]]:
    """The judge's choices on labelled pairs, each with the label's choice."""
    for choice in choices:
        probability = labels.get(choice.prompt_id, {}).get((choice.one, choice.other))
        if probability is not None:
            yield choice, _Choice(choice.prompt_id, choice.one, choice.other, probability)


def _label_metrics(labelled: Sequence[tuple[_Choice, _Choice]], text_of: Mapping[str, str]) -> LabelMetrics | None:
    decided = [(judged, label) for judged, label in labelled if label.sign]
    agreement = share((judged.prompt_id, (1 + judged.sign * label.sign) / 2) for judged, label in decided)
    if agreement is None:
        return None
    rows: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for judged, label in decided:
        row = rows[judged.prompt_id]
        row[0] += 1
        row[1] += judged.sign == label.sign
        row[2] += judged.sign == 0
    return LabelMetrics(
        agreement=agreement,
        kappa=bootstrap_totals(list(rows.values()), _kappa),
        longer_wins=share(_longer([label for _, label in decided], text_of)),
    )


def _kappa(totals_RC: FloatArray) -> FloatArray:
    """From the counts of pairs, agreements and the judge's ties. By chance, half of the decisions agree."""
    pairs, same, ties = totals_RC.T
    agreement, expected = same / pairs, (1 - ties / pairs) / 2
    kappa: FloatArray = (agreement - expected) / (1 - expected)
    return kappa
