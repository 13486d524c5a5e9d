"""A reward model trained on the training rankings, and its accuracy on the held-out ones."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from aligndistill.config.models import LocalModel
from aligndistill.config.students import RewardTraining
from aligndistill.processes.progress import track
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Ranking, Split
from aligndistill.reporting.report import EnsembleMetrics
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import HELD_OUT_PAIRS, RANKINGS, HeldOutPair, write_log
from aligndistill.stages.models import new_model
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult, trains

if TYPE_CHECKING:
    from aligndistill.models import reward
    from aligndistill.models.load import ModelPointer
    from aligndistill.models.tokenise import Limits
    from aligndistill.objectives.length_bias import LengthTerm


@trains
def make(context: StageContext, *, settings: RewardTraining, rankings: Path, seed: int, start: Path | None = None) -> StageResult:
    """Train on the training rankings, score the held-out ones.

    Args:
        start: the model whose backbone is used, unless the settings name another.
    """
    from transformers import AutoModelForSequenceClassification

    from aligndistill.evaluation.calibration import preference_metrics
    from aligndistill.models.load import ModelPointer, read_pointer
    from aligndistill.models.reward import load_reward_model, new_reward_model, separate_heads
    from aligndistill.models.tokenise import Limits
    from aligndistill.stages.tokens import ranking_examples
    from aligndistill.training.fit import TrainingJob
    from aligndistill.training.offline.reward_model import length_term, train_reward_model
    from aligndistill.training.save import save_model

    backbone = _backbone(context, settings.model, start, rankings, seed)
    backbone = backbone.for_training(adapters=settings.lora is not None)
    reward_model = new_reward_model(backbone, seed, settings.ensemble, settings.pooling)
    limits = Limits(settings.max_prompt_tokens, settings.max_response_tokens, reward_model.max_positions)

    examples = ranking_examples(context, rankings, reward_model.conversation, limits, ties=settings.pair_labels == "soft")
    job = TrainingJob("reward model", settings, context.runtime, context.scratch, seed)
    term = length_term(settings, examples)
    trained = train_reward_model(reward_model, settings, examples, job, term)
    save_model(trained, context.folder / "model", backbone, settings.lora is not None, AutoModelForSequenceClassification)
    if not is_main_process():
        return StageResult()
    allowed = backbone.trust_remote_code
    if settings.ensemble > 1:
        separate_heads(context.folder / "model", allowed)
    ModelPointer(path="model", layout=backbone.layout, thinking=backbone.thinking, trust_remote_code=allowed).write(context.folder)
    write_log(context.folder, trained.log)
    held_out = _rankings(rankings, "held_out")
    # The saved model is measured.
    saved = load_reward_model(read_pointer(context.folder), reward_model.tokenizer, members=settings.ensemble > 1)
    pairs = _held_out_pairs(saved, held_out, limits, context.runtime.per_device_eval_batch_size, term)
    write_jsonl(context.folder / HELD_OUT_PAIRS, pairs)
    metrics = preference_metrics(
        [pair.difference for pair in pairs], [pair.length_gap_tokens for pair in pairs], [pair.prompt_id for pair in pairs]
    ) if pairs else None  # fmt: skip
    return StageResult(
        counts={
            "train": len(examples),
            "held_out": len(held_out),
            "held_out_pairs": len(pairs),
            "steps": trained.steps,
            **examples.cut,
        },
        dropped=examples.dropped,
        metrics={
            "train_seconds": trained.seconds,
            "held_out": metrics.model_dump() if metrics else None,
            "shares_prompt": reward_model.shares_prompt,
            "length_term": asdict(term) if term else None,
            **({"ensemble": ensemble_metrics(pairs).model_dump()} if settings.ensemble > 1 and pairs else {}),
        },
    )


def _rankings(folder: Path, split: Split) -> list[Ranking]:
    return [one for one in read_jsonl(folder / RANKINGS, Ranking) if one.split == split]


def _backbone(context: StageContext, model: LocalModel | None, start: Path | None, rankings: Path, seed: int) -> "ModelPointer":
    from aligndistill.models.load import pointer_to, read_pointer

    if model is None:
        assert start is not None, "the config's checks see to that"
        return read_pointer(start).unquantised()
    if model.from_scratch is None:
        return pointer_to(model)
    train = _rankings(rankings, "train")
    texts = (text for one in train for text in (*(m.content for m in one.messages), *(r.text for r in one.responses)))
    return new_model(context, model, model.from_scratch, texts, seed)


def _apart(better: Sequence[float], worse: Sequence[float]) -> tuple[float, ...]:
    """The difference by each member; none without an ensemble."""
    return tuple(a - b for a, b in zip(better, worse, strict=True)) if len(better) > 1 else ()


def ensemble_metrics(pairs: Sequence[HeldOutPair]) -> EnsembleMetrics:
    """How far the members of an ensemble are apart on held-out pairs, and what their mean probability is worth.

    The probability of a pair by the mean reward is sigmoid(mean difference); by the members it is the mean of their sigmoids, which
    is nearer to one half where they disagree.
    """
    from scipy.special import expit, logit

    from aligndistill.evaluation.calibration import preference_metrics

    gaps, prompts = [pair.length_gap_tokens for pair in pairs], [pair.prompt_id for pair in pairs]
    mean_logits = [float(logit(min(max(fmean(expit(pair.members)), 1e-9), 1 - 1e-9))) for pair in pairs]
    apart: dict[bool, list[float]] = {True: [], False: []}
    for pair in pairs:
        apart[pair.difference > 0].append(stdev(pair.members))
    return EnsembleMetrics(
        members=len(pairs[0].members),
        disagreement=fmean(apart[True] + apart[False]),
        disagreement_right=fmean(apart[True]) if apart[True] else None,
        disagreement_wrong=fmean(apart[False]) if apart[False] else None,
        ece=preference_metrics(mean_logits, gaps, prompts).ece,
    )


def _held_out_pairs(
    reward_model: "reward.RewardModel", rankings: Sequence[Ranking], limits: "Limits", batch_size: int, term: "LengthTerm | None"
) -> list[HeldOutPair]:
    import torch

    from aligndistill.models.reward import score_rewards
    from aligndistill.objectives.pairs import differences
    from aligndistill.training.offline.examples import tokenise_rankings

    tokenised = tokenise_rankings(reward_model.conversation, rankings, limits)
    pairs: list[list[HeldOutPair]] = [[] for _ in tokenised.groups]
    for scored in track(score_rewards(reward_model, tokenised.groups, batch_size), "held-out rewards", len(tokenised.groups)):
        ranking = rankings[tokenised.indices[scored.index]]
        lengths = [len(response) for response in tokenised.groups[scored.index].responses]
        gaps_KK = differences(torch.tensor([lengths], dtype=torch.float32))[0]
        terms_KK = (term.logit(gaps_KK) if term else torch.zeros_like(gaps_KK)).tolist()
        for better, worse in combinations(range(len(ranking.responses)), 2):
            if ranking.responses[better].score > ranking.responses[worse].score:
                pairs[scored.index].append(
                    HeldOutPair(
                        prompt_id=ranking.prompt_id,
                        difference=scored.rewards[better] - scored.rewards[worse],
                        length_gap_tokens=lengths[better] - lengths[worse],
                        length_term=terms_KK[better][worse],
                        members=_apart(scored.members[better], scored.members[worse]),
                    )
                )
    return [pair for group in pairs for pair in group]
