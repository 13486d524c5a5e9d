"""`aligndistill eval-rm`: evaluate a reward model on a file in RewardBench's format."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from aligndistill.commands.output import print_json, print_table
from aligndistill.config.data import Source
from aligndistill.data.loading import load_benchmark
from aligndistill.errors import DataError
from aligndistill.evaluation.rewardbench import RewardBench, RewardedRow, rewardbench_accuracy
from aligndistill.models.conversation import Layout
from aligndistill.models.load import MODEL_JSON, ModelPointer, read_pointer
from aligndistill.models.reward import load_reward_model, score_rewards
from aligndistill.models.tokenise import Limits, PromptWithResponses, tokenise
from aligndistill.processes.progress import doing, track
from aligndistill.records import prompt_id
from aligndistill.reporting.rewardbench_table import rewardbench_table

UNLIMITED_TOKENS = 2**31


@dataclass(frozen=True)
class Benchmarked:
    """The result of a benchmark.

    Attributes:
        dropped: the number of dropped rows by reason.
        cut: the number of answers that were too long for the model, and were truncated.
    """

    metrics: RewardBench
    dropped: dict[str, int]
    cut: int

    def values(self, model: str, dataset: Path) -> dict[str, Any]:
        """The result for JSON, with the names of the model and the data set."""
        counts = {"left_out": self.dropped, "answers_cut": self.cut}
        return {"model": model, "dataset": str(dataset), **self.metrics.model_dump(mode="json"), **counts}


def print_benchmark(
    model: str, dataset: Path, output: Path | None, layout: Layout | None, batch_size: int, as_json: bool = False
) -> None:
    """Print how often a reward model scores the right answer highest; with `output`, also write a JSON file.

    Args:
        as_json: print one JSON object instead of a table.

    Raises:
        DataError: no such model or file, or no usable row.
    """
    found = benchmark_reward_model(model, dataset, layout, batch_size)
    if output is not None:
        output.write_text(json.dumps(found.values(model, dataset), indent=2) + "\n", encoding="utf-8")
    if as_json:
        print_json("eval-rm", found.values(model, dataset))
        return
    print_table(rewardbench_table(found.metrics))
    for reason, count in found.dropped.items():
        typer.echo(f"dropped: {count} rows ({reason})")
    if found.cut:
        typer.echo(f"{found.cut} answers were too long for the model and were truncated")


def benchmark_reward_model(model: str, dataset: Path, layout: Layout | None, batch_size: int) -> Benchmarked:
    """Score every row's answers, and count how often the right answer has the highest reward.

    Args:
        model: a run's folder, a reward model's folder, or any sequence classifier with one label.
        layout: how it reads conversations; None reads it from `model.json`, or takes `chat` if there is none.

    Raises:
        DataError: no such model or file, or no usable row.
    """
    with doing(f"reading {dataset} and loading {model}"):
        loaded = load_benchmark(Source(path=str(dataset), on_bad_row="drop")).all()
        reward_model = load_reward_model(_pointer(model, layout))
    exchanges = [
        PromptWithResponses(row.prompt, [*row.chosen, *row.rejected], ["stop"] * (len(row.chosen) + len(row.rejected)))
        for row in loaded.records
    ]
    positions = reward_model.max_positions
    limit = positions or UNLIMITED_TOKENS
    tokenised = tokenise(reward_model.conversation, exchanges, Limits(limit, limit, positions))
    if not tokenised.groups:
        raise DataError(f"{dataset}: every prompt is too long for this model ({limit} tokens). Use a model with more positions.")
    rewarded = []
    for scored in track(score_rewards(reward_model, tokenised.groups, batch_size), "rewards", len(tokenised.groups)):
        row = loaded.records[tokenised.indices[scored.index]]
        if not all(map(math.isfinite, scored.rewards)):
            raise DataError(f"{model}: its rewards are not finite numbers ({scored.rewards}).")
        chosen, rejected = scored.rewards[: len(row.chosen)], scored.rewards[len(row.chosen) :]
        ties = row.identity if row.in_ties else ""
        rewarded.append(RewardedRow(row.subset, prompt_id(row.prompt), ties, tuple(chosen), tuple(rejected), row.pair))
    too_long = {"prompt too long for the model": tokenised.too_long} if tokenised.too_long else {}
    return Benchmarked(rewardbench_accuracy(rewarded), {**loaded.dropped, **too_long}, tokenised.responses_cut)


def _pointer(model: str, layout: Layout | None) -> ModelPointer:
    """The pointer to a run's reward model, to a folder with a `model.json`, or to any other model."""
    folder = Path(model)
    if (folder / "artifacts.json").is_file():
        made = json.loads((folder / "artifacts.json").read_text(encoding="utf-8"))
        if "reward_model" not in made:
            raise DataError(f"{folder}: this run has no reward model. Its config needs a section reward_model.")
        folder = Path(made["reward_model"])
    if (folder / MODEL_JSON).is_file():
        pointer = read_pointer(folder)
        if folder == Path(model):  # it may come from elsewhere; what a run's config allowed is in the run
            pointer = pointer.model_copy(update={"trust_remote_code": False})
        return pointer.model_copy(update={"layout": layout}) if layout else pointer
    return ModelPointer(path=str(folder.absolute()) if folder.is_dir() else model, layout=layout or "chat")
