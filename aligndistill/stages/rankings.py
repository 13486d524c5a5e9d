"""rankings.jsonl and pairs.jsonl: what every student and the reward model learn from; ties.jsonl: for soft labels besides."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from aligndistill.config import Rankings
from aligndistill.preferences.agreement import Share, longer_wins, order_bias
from aligndistill.preferences.pairs import pairs_of
from aligndistill.preferences.rankings import RankingOutcome, rank, rank_ready_made
from aligndistill.preferences.scores import judge_advantage
from aligndistill.prompts.loading import load_rankings
from aligndistill.records import Candidate, Comparison, Prompt, Ranking, group_by_prompt
from aligndistill.stages.stage import Made, Work, require_records
from aligndistill.stages.tokens import TIES
from aligndistill.stages.verdicts import read_verdicts
from aligndistill.store.jsonl import read_jsonl, write_jsonl


def make_rankings(work: Work, settings: Rankings, conversational: bool) -> Made:
    """Rank each prompt's candidates by the verdicts on them."""
    candidates = group_by_prompt(read_jsonl(work.inputs["candidates"] / "candidates.jsonl", Candidate))
    verdicts = group_by_prompt(read_verdicts(work.inputs["verdicts"]))
    prompts = read_jsonl(work.inputs["prompts"] / "prompts.jsonl", Prompt)
    comparisons = [one for many in verdicts.values() for one in many if isinstance(one, Comparison)]
    advantage = judge_advantage(comparisons)
    outcomes = (rank(prompt, candidates[prompt.id], verdicts[prompt.id], settings, advantage) for prompt in prompts)
    made = _write(work, settings, conversational, outcomes, {})
    if not comparisons:
        return made
    bias = order_bias(comparisons)
    shown = {"order_flips": bias.flips.value, "first_wins": bias.first_wins.value, "first_advantage": advantage}
    return Made(made.counts, made.dropped, {**made.figures, **shown})


def make_ready_made_rankings(work: Work, settings: Rankings, held_out: float, conversational: bool, content: str) -> Made:
    """Rankings that came with the data."""
    assert settings.source is not None
    loading = load_rankings(settings.source, held_out)
    outcomes = (rank_ready_made(ranking, settings) for ranking in loading)
    made = _write(work, settings, conversational, outcomes, loading.dropped)
    return Made({"rows": loading.rows, **made.counts}, made.dropped, made.figures)


def _write(
    work: Work, settings: Rankings, conversational: bool, outcomes: Iterable[RankingOutcome], dropped_before: Mapping[str, int]
) -> Made:
    """Write what was ranked as it comes. `dropped_before` may grow while the outcomes are gone through."""
    dropped: Counter[str] = Counter()
    train = pairs = 0
    longer = Share(0, 0)

    def rankings() -> Iterator[Ranking]:
        nonlocal train, pairs, longer
        for outcome in outcomes:
            dropped["answers without a verdict"] += outcome.no_verdict
            ranking = outcome.ranking
            if ranking is None:
                dropped[str(outcome.dropped)] += 1
                if outcome.tied is not None and outcome.tied.split == "train":
                    ties.write(outcome.tied.model_dump_json() + "\n")
                continue
            if ranking.split == "train":
                train += 1
                for row in pairs_of(ranking, settings.pairs, conversational=conversational):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    pairs += 1
            longer += longer_wins([ranking])
            yield ranking

    with (
        (work.folder / "pairs.jsonl").open("w", encoding="utf-8", errors="surrogatepass") as file,
        (work.folder / TIES).open("w", encoding="utf-8", errors="surrogatepass") as ties,
    ):
        written = write_jsonl(work.folder / "rankings.jsonl", rankings())
    dropped += Counter(dropped_before)
    require_records(train, "training rankings", dropped)
    return Made(
        counts={"train": train, "held_out": written - train, "pairs": pairs},
        dropped={reason: count for reason, count in dropped.items() if count},
        figures={"longer_wins": longer.value},
    )
