"""A reward model that learned the training rankings, and what it makes of the held-out ones."""

from collections.abc import Sequence
from itertools import combinations

from transformers import AutoModelForSequenceClassification

from aligndistill.config import LocalModel, RewardModel
from aligndistill.evaluation.calibration import preference_figures
from aligndistill.models.from_scratch import write_new_model
from aligndistill.models.load import ModelPointer, pointer_to, read_pointer
from aligndistill.models.reward import RewardModel as LoadedRewardModel
from aligndistill.models.reward import load_reward_model, new_reward_model, score_rewards
from aligndistill.models.tokenise import Limits
from aligndistill.progress import track
from aligndistill.records import Ranking, Record, Split
from aligndistill.stages.stage import Made, Work, require_records
from aligndistill.stages.tokens import ranking_examples
from aligndistill.stages.training_log import write_log
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.training.align import train_reward_model
from aligndistill.training.distributed import is_main_process
from aligndistill.training.examples import tokenise_rankings
from aligndistill.training.job import Job
from aligndistill.training.save import save_model


class HeldOutPair(Record):
    """One strictly ordered pair of a held-out prompt, as the reward model sees it.

    Attributes:
        difference: reward of the better answer minus that of the worse; P(better) = sigmoid(difference).
        length_gap_tokens: tokens of the better answer minus those of the worse.
    """

    prompt_id: str
    difference: float
    length_gap_tokens: int


def make_reward_model(work: Work, settings: RewardModel, content: str) -> Made:
    """Train on the training rankings, score the held-out ones. `content` is the hash of a trunk's own folder."""
    trunk = _trunk(work, settings.model)
    trunk = trunk.for_training(adapters=settings.lora is not None)
    reward_model = new_reward_model(trunk, work.seed)
    limits = Limits(settings.max_prompt_tokens, settings.max_response_tokens, reward_model.max_positions)

    examples = ranking_examples(work, reward_model.conversation, limits, ties=settings.labels == "soft")
    require_records(len(examples), "training rankings", examples.dropped)
    job = Job("reward model", settings, work.runtime, work.scratch, work.seed)
    trained = train_reward_model(reward_model, settings, examples, job)
    save_model(trained, work.folder / "model", trunk, settings.lora is not None, AutoModelForSequenceClassification)
    if not is_main_process():
        return Made()
    ModelPointer(path="model", layout=trunk.layout).write(work.folder)
    write_log(work.folder, trained)
    held_out = _rankings(work, "held_out")
    saved = load_reward_model(read_pointer(work.folder))  # what was saved is what is measured
    pairs = _held_out_pairs(saved, held_out, limits, work.runtime.per_device_eval_batch_size)
    write_jsonl(work.folder / "held_out.jsonl", pairs)
    figures = preference_figures(
        [pair.difference for pair in pairs], [pair.length_gap_tokens for pair in pairs], [pair.prompt_id for pair in pairs]
    ) if pairs else None  # fmt: skip
    return Made(
        counts={
            "train": len(examples),
            "held_out": len(held_out),
            "held_out_pairs": len(pairs),
            "steps": trained.steps,
            **examples.cut,
        },
        dropped=examples.dropped,
        figures={
            "train_seconds": trained.seconds,
            "held_out": figures.model_dump() if figures else None,
            "shares_prompt": reward_model.shares_prompt,
        },
    )


def _rankings(work: Work, split: Split) -> list[Ranking]:
    return [one for one in read_jsonl(work.inputs["rankings"] / "rankings.jsonl", Ranking) if one.split == split]


def _trunk(work: Work, model: LocalModel | None) -> ModelPointer:
    if model is None:
        return read_pointer(work.inputs["start"])
    if model.from_scratch is None:
        return pointer_to(model)
    folder = work.scratch / "trunk"
    sizes = model.from_scratch
    train = _rankings(work, "train")
    texts = (text for one in train for text in (*(m.content for m in one.messages), *(r.text for r in one.responses)))
    write_new_model(folder, sizes, texts, work.seed)
    return ModelPointer(path=str(folder), layout=model.layout)


def _held_out_pairs(
    reward_model: LoadedRewardModel, rankings: Sequence[Ranking], limits: Limits, batch_size: int
) -> list[HeldOutPair]:
    tokenised = tokenise_rankings(reward_model.conversation, rankings, limits)
    pairs: list[list[HeldOutPair]] = [[] for _ in tokenised.groups]
    for scored in track(score_rewards(reward_model, tokenised.groups, batch_size), "held-out rewards", len(tokenised.groups)):
        ranking = rankings[tokenised.indices[scored.index]]
        lengths = [len(response) for response in tokenised.groups[scored.index].responses]
        for better, worse in combinations(range(len(ranking.responses)), 2):
            if ranking.responses[better].score > ranking.responses[worse].score:
                pairs[scored.index].append(
                    HeldOutPair(
                        prompt_id=ranking.prompt_id,
                        difference=scored.rewards[better] - scored.rewards[worse],
                        length_gap_tokens=lengths[better] - lengths[worse],
                    )
                )
    return [pair for group in pairs for pair in group]
