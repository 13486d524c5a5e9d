"""How far a judge's verdicts can be trusted, as figures with intervals. All pure: verdicts in, figures out.

Unless said otherwise, intervals are bootstraps over prompts, for the verdicts on one prompt hang together.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from aligndistill.evaluation.intervals import FloatArray, Mean, bootstrap_totals, wilson
from aligndistill.evaluation.wins import by_prompt
from aligndistill.records import Canary, CanaryKind, Candidate, Comparison, Grade, Record, Verdict, group_by_prompt, is_unparsed

Labels = Mapping[str, Mapping[str, float]]
"""Prompt id -> candidate id -> how good a person, or the truth, says it is (higher is better)."""

SHUFFLES = 400


class LabelFigures(Record):
    """How the judge's choices compare with labels from elsewhere, over the pairs that the labels decide.

    Attributes:
        agreement: share of pairs on which the judge chooses as the labels do; its ties count half.
        kappa: agreement beyond chance (Cohen 1960), a tie of the judge being no agreement.
        longer_wins: how often the longer answer is the better one by the labels: the agreement of somebody who always takes
            the longer one, which a judge must beat.
    """

    agreement: Mean
    kappa: Mean
    longer_wins: Mean | None


class AuditMetrics(Record):
    """What a judge's verdicts show of it; None where there was nothing to measure it on.

    Attributes:
        verdicts, prompts: how many there are.
        unparsed: verdicts that could not be read.
        order_flips: pairs whose winner changed with the order, of the pairs read in both orders.
        first_position: decided comparisons won by the answer shown first; 0.5 for a judge without a taste for a place.
        longer_wins: decided pairs won by the longer answer (characters), of those whose lengths differ.
        longer_wins_by_chance: the same when each prompt's lengths are dealt out at random: the range that means nothing.
        intransitive: of three compared answers, all pairs decided, how often the choices go round in a circle.
        self_consistency: questions asked twice that were decided alike.
        own_answers_win: how often the judge's own answers beat those of others, ties counting half.
        own_answers_win_by_labels: the same by the labels: what lies above it is self-preference.
        panel_agreement: how often two judges of a panel choose alike on the same pair.
        canaries: how often the judge prefers known-bad answers, ties counting half; Wilson's interval.
        canaries_by_kind: the same for each kind.
    """

    verdicts: int
    prompts: int
    unparsed: Mean | None = None
    order_flips: Mean | None = None
    first_position: Mean | None = None
    longer_wins: Mean | None = None
    longer_wins_by_chance: Mean | None = None
    intransitive: Mean | None = None
    self_consistency: Mean | None = None
    own_answers_win: Mean | None = None
    own_answers_win_by_labels: Mean | None = None
    panel_agreement: Mean | None = None
    labels: LabelFigures | None = None
    canaries: Mean | None = None
    canaries_by_kind: Mapping[CanaryKind, Mean] = {}


@dataclass(frozen=True)
class Evidence:
    """What an audit looks at.

    Attributes:
        verdicts: the judge's, on `candidates`.
        repeats: verdicts on some of the same questions, asked a second time.
        canaries: known-bad answers with their verdicts.
        labels: what people or the truth say; empty where nobody does.
        own_author: the author whose model is also the judge; None where there is no such author.
    """

    verdicts: Sequence[Verdict]
    candidates: Sequence[Candidate]
    repeats: Sequence[Verdict] = ()
    canaries: Sequence[Canary] = ()
    labels: Labels | None = None
    own_author: str | None = None


@dataclass(frozen=True)
class _Choice:
    """What a judge makes of a pair: P(one beats other), every order and sample put together. `one` < `other`."""

    prompt_id: str
    one: str
    other: str
    probability: float

    @property
    def sign(self) -> int:
        return (self.probability > 0.5) - (self.probability < 0.5)


def audit(evidence: Evidence) -> AuditMetrics:
    """All figures that the evidence allows."""
    asked = list(_asked(evidence.verdicts))
    comparisons = [verdict for verdict in evidence.verdicts if isinstance(verdict, Comparison)]
    shown = [verdict for verdict in asked if isinstance(verdict, Comparison)]
    choices = list(_choices(evidence.verdicts))
    text_of = {candidate.id: candidate.text for candidate in evidence.candidates}
    author_of = {candidate.id: candidate.author for candidate in evidence.candidates}
    labelled = list(_labelled(choices, evidence.labels or {}))
    own = evidence.own_author
    return AuditMetrics(
        verdicts=len(evidence.verdicts),
        prompts=len({verdict.prompt_id for verdict in evidence.verdicts}),
        unparsed=_share((verdict.prompt_id, is_unparsed(verdict)) for verdict in asked),
        order_flips=_share(_flips(shown)),
        first_position=_share((one.prompt_id, one.outcome == "first") for one in shown if one.outcome in ("first", "second")),
        longer_wins=_share(_longer(choices, text_of)),
        longer_wins_by_chance=_longer_by_chance(choices, text_of),
        intransitive=_share(_circles(list(_choices(comparisons)))),
        self_consistency=_share(_same_again(asked, list(_asked(evidence.repeats)))),
        own_answers_win=_share(_own_wins(choices, author_of, own)) if own else None,
        own_answers_win_by_labels=_share(_own_wins([label for _, label in labelled], author_of, own)) if own else None,
        panel_agreement=_share(_panel(asked)),
        labels=_label_figures(labelled, text_of) if labelled else None,
        canaries=_canaries(evidence.canaries),
        canaries_by_kind={
            kind: rate
            for kind in dict.fromkeys(canary.kind for canary in evidence.canaries)
            if (rate := _canaries([canary for canary in evidence.canaries if canary.kind == kind]))
        },
    )


# ----------------------------------------------------------------------------------------------------- single figures


def _asked(verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    """What judges were asked: for a panel's verdict those of its members, each once (a grade is part of several)."""
    graded: set[tuple[str, str, str]] = set()
    for verdict in verdicts:
        for one in verdict.members if isinstance(verdict, Comparison) and verdict.members else (verdict,):
            key = (one.prompt_id, one.judge, one.candidate) if isinstance(one, Grade) and one is not verdict else None
            if key is None or key not in graded:
                graded |= {key} if key is not None else set()
                yield one


def _choices(verdicts: Iterable[Verdict]) -> Iterator[_Choice]:
    for prompt, known in by_prompt(verdicts).items():
        pairs = {tuple(sorted(pair)) for pair in known.comparisons} | set(combinations(sorted(known.grades), 2))
        for one, other in sorted(pairs):
            probability = known.win_probability(one, other)
            if probability is not None:
                yield _Choice(prompt, one, other, probability)


def _flips(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, bool]]:
    outcome_of = {
        (one.prompt_id, one.judge, one.first, one.second): one.outcome for one in comparisons if one.outcome != "unparsed"
    }
    for (prompt, judge, first, second), outcome in outcome_of.items():
        swapped = outcome_of.get((prompt, judge, second, first))
        if first < second and swapped is not None:  # each pair is met twice
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
    import numpy as np  # only here: a pipeline is built by importing this file, too

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


def _circles(choices: Sequence[_Choice]) -> Iterator[tuple[str, bool]]:
    of_prompt: dict[str, dict[tuple[str, str], int]] = defaultdict(dict)
    for choice in choices:
        if choice.sign:
            of_prompt[choice.prompt_id][choice.one, choice.other] = choice.sign
    for prompt, sign_of in of_prompt.items():
        for a, b, c in combinations(sorted({one for pair in sign_of for one in pair}), 3):
            if (a, b) in sign_of and (b, c) in sign_of and (a, c) in sign_of:
                yield prompt, sign_of[a, b] == sign_of[b, c] != sign_of[a, c]


def _same_again(verdicts: Iterable[Verdict], repeats: Sequence[Verdict]) -> Iterator[tuple[str, bool]]:
    """The same comparison in the same order, or the order that grades put two answers into. Unreadable ones say nothing."""
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


def _own_wins(choices: Iterable[_Choice], author_of: Mapping[str, str], own: str) -> Iterator[tuple[str, float]]:
    for choice in choices:
        ours = [author_of[candidate] == own for candidate in (choice.one, choice.other)]
        if sum(ours) == 1:
            yield choice.prompt_id, (1 + choice.sign * (1 if ours[0] else -1)) / 2


def _panel(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, bool]]:
    of_judge: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        of_judge[verdict.judge].append(verdict)
    signs = [{(c.prompt_id, c.one, c.other): c.sign for c in _choices(some)} for some in of_judge.values()]
    for first, second in combinations(signs, 2):
        for pair in first.keys() & second.keys():
            yield pair[0], first[pair] == second[pair]


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
    """The judge's choices on pairs that have labels, each with the label's."""
    for choice in choices:
        of_prompt = labels.get(choice.prompt_id, {})
        if choice.one in of_prompt and choice.other in of_prompt:
            gap = of_prompt[choice.one] - of_prompt[choice.other]
            yield choice, _Choice(choice.prompt_id, choice.one, choice.other, 0.5 if gap == 0 else float(gap > 0))


def _label_figures(labelled: Sequence[tuple[_Choice, _Choice]], text_of: Mapping[str, str]) -> LabelFigures | None:
    decided = [(judged, label) for judged, label in labelled if label.sign]
    agreement = _share((judged.prompt_id, (1 + judged.sign * label.sign) / 2) for judged, label in decided)
    if agreement is None:
        return None
    rows: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for judged, label in decided:
        row = rows[judged.prompt_id]
        row[0] += 1
        row[1] += judged.sign == label.sign
        row[2] += judged.sign == 0
    return LabelFigures(
        agreement=agreement,
        kappa=bootstrap_totals(list(rows.values()), _kappa),
        longer_wins=_share(_longer([label for _, label in decided], text_of)),
    )


def _kappa(totals_RC: FloatArray) -> FloatArray:
    """From pairs, agreements and the judge's ties. A pair has no first answer: by chance, half of its decisions agree."""
    pairs, same, ties = totals_RC.T
    agreement, expected = same / pairs, (1 - ties / pairs) / 2
    kappa: FloatArray = (agreement - expected) / (1 - expected)
    return kappa


def _share(counted: Iterable[tuple[str, float]]) -> Mean | None:
    """The mean of what was counted, by prompt; None where nothing was."""
    rows: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for prompt, value in counted:
        rows[prompt][0] += value
        rows[prompt][1] += 1
    return bootstrap_totals(list(rows.values()), lambda totals: totals[:, 0] / totals[:, 1]) if rows else None


# ------------------------------------------------------------------------------------------------------------- limits


def exceeded(metrics: AuditMetrics, limits: Mapping[str, float | None]) -> list[str]:
    """What is certainly worse than its limit, one sentence each: the whole interval lies beyond it, so chance does not warn.

    Args:
        limits: `unparsed`, `order_flips`, `first_position` (either way from one half), `longer_wins`, `canaries`,
            `inconsistent` (of questions asked twice), `disagreement` (with labels); None looks at none.
    """
    agreement = metrics.labels.agreement if metrics.labels else None
    first = metrics.first_position
    measured = {
        "unparsed": (metrics.unparsed, "of the verdicts could not be read"),
        "order_flips": (metrics.order_flips, "of the pairs change their winner with the order"),
        "first_position": (
            first if first is None or first.mean >= 0.5 else _rest(first),
            f"of the decisions go to the answer shown {'first' if first is None or first.mean >= 0.5 else 'second'}",
        ),
        "longer_wins": (metrics.longer_wins, "of the decisions go to the longer answer"),
        "canaries": (metrics.canaries, "of the known-bad answers are preferred to a candidate"),
        "inconsistent": (_rest(metrics.self_consistency), "of the questions asked twice are answered differently"),
        "disagreement": (_rest(agreement), "of the labelled pairs are decided otherwise than the labels say"),
    }
    assert limits.keys() <= measured.keys()
    found = []
    for name, limit in limits.items():
        figure, words = measured[name]
        if limit is not None and figure is not None and figure.low > limit:
            interval = f"{100 * figure.low:.0f}% to {100 * figure.high:.0f}%"
            found.append(f"{100 * figure.mean:.0f}% [{interval}] {words} (limit {name}: {limit:g})")
    return found


def _rest(figure: Mean | None) -> Mean | None:
    return None if figure is None else Mean(mean=1 - figure.mean, low=1 - figure.high, high=1 - figure.low, n=figure.n)
