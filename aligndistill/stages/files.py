"""The files of artifacts: their names, record types and readers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from aligndistill.records import Finish, Message, Prompt, Record, Verdict
from aligndistill.store.jsonl import read_jsonl, read_union

PROMPTS = "prompts.jsonl"
DROPPED = "dropped.jsonl"
GENERATED = "generated.jsonl"
CANDIDATES = "candidates.jsonl"
VERDICTS, CANARIES, REPEATS = "verdicts.jsonl", "canaries.jsonl", "repeats.jsonl"
AUDIT, VERDICTS_PAGE = "audit.json", "verdicts.html"
RANKINGS, PAIRS, TIES = "rankings.jsonl", "pairs.jsonl", "ties.jsonl"
HELD_OUT_PAIRS = "held_out.jsonl"
ANSWERS = "answers.jsonl"
DEMONSTRATIONS = "demonstrations.jsonl"
EVALUATION, SCORED, MODEL_OUTPUTS = "evaluation.json", "scored.jsonl", "model_outputs"
FIDELITY = "fidelity.json"
PROGRESS = "progress.json"
ELICITATION, SEEDS = "elicitation.json", "seeds.jsonl"
METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"
PROJECTIONS = "projections.safetensors"
ANY_VERDICT: TypeAdapter[Verdict] = TypeAdapter(Verdict)


class RolloutSample(Record):
    """One sampled answer of one update of on-policy training: a row of `samples.jsonl`.

    Attributes:
        place: the index of its prompt in the update.
        score, kl_nats: its reward and log(policy / start), nats; None in distillation, which has neither.
    """

    update: int
    place: int
    prompt_id: str
    messages: tuple[Message, ...]
    text: str
    finish: Finish
    score: float | None
    kl_nats: float | None
    length_tokens: int


class HeldOutPair(Record):
    """One strictly ordered pair of a held-out prompt, scored by the reward model: a row of `held_out.jsonl`.

    Attributes:
        difference: reward of the better answer minus that of the worse; P(better) = sigmoid(difference).
        length_gap_tokens: tokens of the better answer minus those of the worse.
        members: the difference by each member of an ensemble; empty without one.
        length_term: what a length-debiased reward model's length term adds to the difference in training; no part of the reward.
    """

    prompt_id: str
    difference: float
    length_gap_tokens: int
    length_term: float = 0.0
    members: tuple[float, ...] = ()


def prompts_folder(folders: Mapping[str, Path]) -> Path | None:
    """The folder with all prompts that a run uses: filtered ones, or those of the last step of `prompts.elicit`, or of its data;
    those that were written for later rounds are among them.

    Args:
        folders: of its finished stages by name, in their order; None is returned if no prompts are among them.
    """
    steps = [folder for name, folder in folders.items() if name.startswith("prompts") and (folder / ELICITATION).is_file()]
    filtered = [folder for name, folder in folders.items() if name == "filters" or name.startswith("filters-r")]
    return filtered[-1] if filtered else steps[-1] if steps else folders.get("prompts")


def held_out_prompts(prompts: Path, limit: int | None) -> list[Prompt]:
    """The held-out prompts; the first `limit` by id."""
    found = [prompt for prompt in read_jsonl(prompts / PROMPTS, Prompt) if prompt.split == "held_out"]
    return sorted(found, key=lambda prompt: prompt.id)[:limit]


def write_log(folder: Path, entries: Sequence[dict[str, float]]) -> None:
    """Write the log of a training run, one line per entry."""
    (folder / METRICS).write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def read_log(folder: Path) -> list[dict[str, float]]:
    """Read the log of a training run."""
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def read_verdicts(folder: Path, name: str = VERDICTS) -> Iterator[Verdict]:
    """The verdicts in a finished stage's folder."""
    return read_union(folder / name, ANY_VERDICT)
