"""`python -m benchmarks.reward_real MODEL_FOLDER RANKINGS_FILE`: a reward model learns a real judge's scores, length put aside.

The rankings are rows of `prompt`, `responses` and `scores`, each score a judge's probability that the answer beats a fixed one, as
AlpacaEval's are. The reward model is trained with a length term and soft labels (`benchmarks/reward_real.yaml`), and measured on
the pairs of prompts that it has not seen, with and without the term. In training a pair of equal scores has the label 1/2; in the
measurement it is left out, for no order is right. All others count the same, near ties among them. Lengths are characters of whole
answers; the term counts the tokens that the model read.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from aligndistill.evaluation.intervals import Mean, bootstrap_totals
from aligndistill.records import Ranking
from aligndistill.stages.files import HELD_OUT_PAIRS, RANKINGS, HeldOutPair
from aligndistill.store.artifacts import read_manifest
from aligndistill.store.jsonl import read_jsonl
from benchmarks.frontier import RESULTS, finished_run

CONFIG = "benchmarks/reward_real.yaml"
MATCHED = 1.2
"""Lengths whose ratio is below this count as equal."""


@dataclass(frozen=True)
class Pair:
    """A held-out pair as the reward model ordered it.

    Attributes:
        reward: that of the better answer minus that of the worse.
        term: what length adds to that in training.
        better, worse: characters.
    """

    prompt: str
    reward: float
    term: float
    better: int
    worse: int


@dataclass(frozen=True)
class Row:
    """How often an order of pairs is the judge's, ties counted half."""

    pairs: str
    count: int
    order: str
    right: dict[str, float]


SUBSETS: dict[str, Callable[[Pair], bool]] = {
    "all": lambda pair: True,
    f"length ratio below {MATCHED}": lambda pair: max(pair.better, pair.worse) < MATCHED * min(pair.better, pair.worse),
    "the shorter answer won": lambda pair: pair.better < pair.worse,
    "the longer answer won": lambda pair: pair.better > pair.worse,
}
ORDERS: dict[str, Callable[[Pair], float]] = {
    "longer wins": lambda pair: pair.better - pair.worse,
    "reward": lambda pair: pair.reward,
    "reward and length term": lambda pair: pair.reward + pair.term,
}


def share(numbers: Sequence[float], prompts: Sequence[str]) -> Mean:
    """The mean over pairs, with its bootstrap interval over prompts."""
    prompt_N = np.unique(list(prompts), return_inverse=True)[1]
    rows = np.zeros((int(prompt_N.max()) + 1, 2))
    np.add.at(rows, prompt_N, np.column_stack([numbers, np.ones(len(numbers))]))
    return bootstrap_totals(rows, lambda totals: totals[:, 0] / np.maximum(totals[:, 1], 1))


def rows_of(pairs: Sequence[Pair]) -> list[Row]:
    """Every order on every subset, and on all pairs what reward and term get right more often than length."""
    rows = []
    for name, belongs in SUBSETS.items():
        chosen = [pair for pair in pairs if belongs(pair)]
        prompts = [pair.prompt for pair in chosen]
        right = {order: np.heaviside([value(pair) for pair in chosen], 0.5) for order, value in ORDERS.items()}
        if name == "all":
            right["the same, minus longer wins"] = right["reward and length term"] - right["longer wins"]
        rows += [Row(name, len(chosen), order, share(list(wins), prompts).model_dump()) for order, wins in right.items()]
    return rows


def joined(rankings: Sequence[Ranking], scored: Sequence[HeldOutPair]) -> Iterator[Pair]:
    """The reward model's pairs with the lengths of their answers. It wrote them in the order of the rankings."""
    following = iter(scored)
    measured = {pair.prompt_id for pair in scored}  # prompts over the limit are missing
    for ranking in rankings:
        for better, worse in combinations(ranking.responses, 2):
            if ranking.prompt_id in measured and better.score > worse.score:
                pair = next(following)
                assert pair.prompt_id == ranking.prompt_id
                yield Pair(pair.prompt_id, pair.difference, pair.length_term, len(better.text), len(worse.text))
    assert next(following, None) is None


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| pairs | number | order by | right |", "|---|---|---|---|"]
    for row in rows:
        right = Mean(**row.right)
        lines.append(f"| {row.pairs} | {row.count} | {row.order} | {right.mean:.3f} [{right.low:.3f}, {right.high:.3f}] |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reward_real", description=__doc__)
    parser.add_argument("model", type=Path, help="a model folder, such as Gemma 3 270M")
    parser.add_argument("rankings_file", type=Path, help="rows of prompt, responses and scores, such as AlpacaEval's judgments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for reward_real.json and .md")
    arguments = parser.parse_args()
    files = {"reward_model.model.model": arguments.model, "rankings.source.path": arguments.rankings_file}
    run = finished_run(CONFIG, "reward-real", arguments.seed, *(f"{key}={path.resolve()}" for key, path in files.items()))
    from aligndistill import open_run

    stages = open_run(run).stages
    rankings = [one for one in read_jsonl(stages["rankings"] / RANKINGS, Ranking) if one.split == "held_out"]
    pairs = list(joined(rankings, list(read_jsonl(stages["reward_model"] / HELD_OUT_PAIRS, HeldOutPair))))
    made = read_manifest(stages["reward_model"])
    assert made is not None
    rows = rows_of(pairs)
    about = {"prompts": made.counts, "length_term": made.metrics["length_term"], "train_seconds": made.metrics["train_seconds"]}
    path = arguments.results / "reward_real"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    text = table(rows) + f"\nTrained on {made.counts['train']} prompts in {made.metrics['train_seconds']:.0f} s; length term: "
    text += (
        f"{made.metrics['length_term']['weight']:.2f} tanh(difference / {made.metrics['length_term']['deviation_tokens']:.0f}).\n"
    )
    path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
