"""rankings.jsonl and pairs.jsonl: the training data of students and the reward model; ties.jsonl: more of it, for soft labels."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from aligndistill.config.data import Source
from aligndistill.config.run import Rankings
from aligndistill.data.loading import load_rankings
from aligndistill.data.trl_pairs import pairs_of
from aligndistill.preferences.agreement import OrderBias, Share, longer_preferred_rate, order_bias
from aligndistill.preferences.rankings import RankingOutcome, rank_ready_made, rank_responses
from aligndistill.preferences.scores import first_position_logit
from aligndistill.records import Candidate, Comparison, Prompt, Ranking, in_step
from aligndistill.stages.context import ModelSource, StageContext, require_records
from aligndistill.stages.files import CANDIDATES, DROPPED, PAIRS, PROMPTS, RANKINGS, TIES, read_verdicts
from aligndistill.stages.filters import decided, kept_of
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult

TIES_ALONE = (
    "Tied rankings alone are enough only if the reward model and all students that learn from rankings, other than best_of_n and "
    "sppo, have `labels: soft` or are distilled; kto cannot learn from them."
)


def make(
    context: StageContext,
    *,
    settings: Rankings,
    conversational: bool,
    prompts: Path,
    candidates: Path,
    verdicts: Path,
    learns_ties: bool = False,
    may_be_tied: bool = False,
) -> StageResult:
    """Rank each prompt's candidates by the verdicts on them; all three are read in step, prompt by prompt.

    Args:
        learns_ties: whether tied rankings alone are enough (see `RunConfig`); otherwise the run stops if there are no others.
        may_be_tied: the run does not stop then (see `stages/rounds.py`).
    """
    advantage = first_position_logit(one for one in read_verdicts(verdicts) if isinstance(one, Comparison))
    bias = OrderBias(Share(0, 0), Share(0, 0))
    compared = False

    def outcomes() -> Iterator[RankingOutcome]:
        nonlocal bias, compared
        answered = in_step(read_jsonl(prompts / PROMPTS, Prompt), read_jsonl(candidates / CANDIDATES, Candidate))
        judged = in_step(read_jsonl(prompts / PROMPTS, Prompt), read_verdicts(verdicts))
        for (prompt, answers), (_, of_prompt) in zip(answered, judged, strict=True):
            comparisons = [one for one in of_prompt if isinstance(one, Comparison)]
            compared = compared or bool(comparisons)
            bias += order_bias(comparisons)
            yield rank_responses(prompt, answers, of_prompt, settings, advantage)

    result = _write(context, settings, conversational, outcomes(), dict, learns_ties, may_be_tied)
    if not compared:
        return result
    shown = {"order_flips": bias.flips.value, "first_wins": bias.first_wins.value, "first_advantage": advantage}
    return StageResult(result.counts, result.dropped, {**result.metrics, **shown})


def read(
    context: StageContext,
    *,
    settings: Rankings,
    conversational: bool,
    models: Mapping[str, ModelSource] | None = None,
    seed: int = 0,
    learns_ties: bool = False,
) -> StageResult:
    """Write ready-made rankings.

    Args:
        models: those that the filters ask.
        learns_ties: see `make`.
    """
    source = settings.source
    assert source is not None
    loading = load_rankings(source, settings.held_out)
    rows: Iterable[Ranking] = loading
    dropped: Counter[str] = Counter()
    asked: dict[str, int] = {}
    if settings.filters is not None:
        read_rows = partial(_iterated, source, settings.held_out)
        decisions, asked = decided(context, read_rows, settings.filters, models or {}, seed)
        rows = kept_of(loading, decisions, dropped, context.folder / DROPPED)
    outcomes = (rank_ready_made(ranking, settings) for ranking in rows)
    result = _write(context, settings, conversational, outcomes, lambda: loading.dropped + dropped, learns_ties)
    return StageResult({"rows": loading.rows, **result.counts}, result.dropped, {**result.metrics, **asked})


def _iterated(source: Source, held_out: float) -> Iterator[Ranking]:
    return iter(load_rankings(source, held_out))


def _write(
    context: StageContext,
    settings: Rankings,
    conversational: bool,
    outcomes: Iterable[RankingOutcome],
    dropped_before: Callable[[], Mapping[str, int]],
    learns_ties: bool,
    may_be_tied: bool = False,
) -> StageResult:
    """Write the rankings one by one. `dropped_before` is called after all of them."""
    dropped: Counter[str] = Counter()
    train = tied = pairs = 0
    longer = Share(0, 0)

    def rankings() -> Iterator[Ranking]:
        nonlocal train, tied, pairs, longer
        for outcome in outcomes:
            dropped["answers without a verdict"] += outcome.no_verdict
            ranking = outcome.ranking
            if ranking is None:
                dropped[str(outcome.dropped)] += 1
                if outcome.tied is not None and outcome.tied.split == "train":
                    tied += 1
                    ties.write(outcome.tied.model_dump_json() + "\n")
                continue
            if ranking.split == "train":
                train += 1
                for row in pairs_of(ranking, settings.pairs, conversational=conversational):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    pairs += 1
            longer += longer_preferred_rate([ranking])
            yield ranking

    with (
        (context.folder / PAIRS).open("w", encoding="utf-8", errors="surrogatepass") as file,
        (context.folder / TIES).open("w", encoding="utf-8", errors="surrogatepass") as ties,
    ):
        written = write_jsonl(context.folder / RANKINGS, rankings())
    dropped += Counter(dropped_before())
    if not (learns_ties and tied) and not may_be_tied:
        require_records(train, "training rankings", dropped, TIES_ALONE if tied else "")
    return StageResult(
        counts={"train": train, "held_out": written - train, "pairs": pairs},
        dropped={reason: count for reason, count in dropped.items() if count},
        metrics={"longer_wins": longer.value},
    )
