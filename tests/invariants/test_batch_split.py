"""How an optimiser step is split into micro-batches changes neither its losses nor the weights it leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from aligndistill.config.offline_objectives import BestOfN, Cpo, Dpo, Kto, Orpo, Pro, Rrhf, Simpo, Sppo
from aligndistill.config.students import RewardTraining as RewardModelSettings
from aligndistill.models.load import ModelPointer
from aligndistill.models.reward import new_reward_model
from aligndistill.records import Ranking
from aligndistill.training.fit import Trained
from aligndistill.training.offline.policy import StepByStep, train_policy
from aligndistill.training.offline.reward_model import train_reward_model
from tests.tiny_models import (
    ANSWERS,
    QUESTIONS,
    assert_same_steps,
    damped_adam,
    ragged_rankings,
    ranking,
    ranking_examples,
    tiny_job,
    tiny_language_model,
    write_tiny_model,
)

OBJECTIVES = {
    "supervised": "supervised",
    "step_by_step": StepByStep(0.3),
    "dpo": Dpo(kind="dpo"),
    "ipo": Dpo(kind="dpo", loss="ipo", labels="soft"),
    "rrhf": Rrhf(kind="rrhf"),
    "pro": Pro(kind="pro"),
    "best_of_n": BestOfN(kind="best_of_n"),
    "rpo": Dpo(kind="dpo", sft_weight=0.5),
    "simpo": Simpo(kind="simpo", sft_weight=0.1),
    "cpo": Cpo(kind="cpo", labels="soft"),
    "orpo": Orpo(kind="orpo"),
    "kto": Kto(kind="kto", beta=1.0),
    "kto_soft": Kto(kind="kto", beta=1.0, labels="soft"),
    "sppo": Sppo(kind="sppo", eta=10.0),
}
METRICS = (
    "grad_norm",
    "rewards/chosen",
    "rewards/margins",
    "rank_loss",
    "sft_loss",
    "accuracy",
    "logps/chosen",
    "margin",
    "baseline_nats",
    "answer_nll",
    "rationale_nll",
)


@pytest.fixture(autouse=True)
def _damped() -> Iterator[None]:
    with damped_adam():
        yield


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trained.trainer.model.named_parameters()}


def train(what: str, per_device: int, folder: Path, ties: bool = False) -> Trained:
    # 2 steps of 8 prompts: the second shows what the first left behind.
    job = tiny_job(folder / "job", max_steps=2, runtime={"per_device_train_batch_size": per_device})
    rankings = with_ties(ragged_rankings()) if ties else ragged_rankings()
    if what == "reward_model":
        backbone = ModelPointer(path=str(write_tiny_model(folder / "backbone")), layout="chat")
        reward_model = new_reward_model(backbone, seed=1)
        examples = ranking_examples(reward_model.conversation, rankings)
        return train_reward_model(reward_model, RewardModelSettings(), examples, job)
    policy = tiny_language_model()
    objective: Any = OBJECTIVES[what]
    if what == "supervised":
        rankings = [ranking(question, ANSWERS[n % 5]) for n, question in enumerate(QUESTIONS)]
    if what == "step_by_step":  # rationales are the longer ones
        rankings = [with_task(ranking(question, ANSWERS[n % 5]), n % 5 in {0, 3}) for n, question in enumerate(QUESTIONS)]
    # KTO's reference is another model: its baseline is then far above 0, and other in each micro-batch.
    needs_baseline = isinstance(objective, Kto)
    reference = tiny_language_model(seed=int(needs_baseline)) if "reference" in getattr(objective, "reads", ()) else None
    examples = ranking_examples(policy.conversation, rankings, reference, mismatched=needs_baseline)
    return train_policy(policy, objective, None, examples, job)


def with_task(one: Ranking, is_rationale: bool) -> Ranking:
    (response,) = one.responses
    return one.model_copy(update={"responses": (response.model_copy(update={"score": float(is_rationale)}),)})


def with_ties(rankings: list[Ranking]) -> list[Ranking]:
    """The same, with all answers of every prompt but the first, the third and the last equally good."""

    def tied(one: Ranking) -> Ranking:
        return one.model_copy(update={"responses": tuple(r.model_copy(update={"score": 0.0}) for r in one.responses)})

    return [one if n in {0, 2, 7} else tied(one) for n, one in enumerate(rankings)]


@pytest.mark.parametrize("what", [*OBJECTIVES, "reward_model"])
def test_eight_ones_four_twos_two_fours_one_eight(what: str, tmp_path: Path) -> None:
    runs = {per_device: train(what, per_device, tmp_path / str(per_device)) for per_device in (1, 2, 8)}
    whole = runs[8]
    assert whole.steps == 2
    assert whole.trainer.args.gradient_accumulation_steps == 1
    start = weights(train(what, 8, tmp_path / "again")) if what == "dpo" else None
    if start is not None:  # and equal runs are equal to the bit, so that a difference means something
        assert all(torch.equal(start[name], value) for name, value in weights(whole).items())
    for per_device in (1, 2):
        split = runs[per_device]
        assert split.trainer.args.gradient_accumulation_steps == 8 // per_device
        for ours, theirs in zip(split.log, whole.log, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5, abs=1e-6)
            for name in METRICS:
                if name in theirs:
                    assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name
        assert_same_steps(weights(split), weights(whole))


@pytest.mark.parametrize("what", ["dpo", "rrhf", "pro", "reward_model", "simpo", "orpo", "kto", "sppo"])
def test_metrics_over_pairs_are_those_of_the_step_where_some_prompts_have_no_pair(what: str, tmp_path: Path) -> None:
    whole, *splits = (train(what, per_device, tmp_path / str(per_device), ties=True) for per_device in (8, 4, 2, 1))
    names = {name for name in whole.log[0] if name in METRICS or name.startswith(("rewards/", "logps/"))}
    names -= {"rewards/accuracies"}  # the policy begins as the reference, so at first rounding decides whose reward is higher
    assert names - {"grad_norm"}
    for split in splits:
        for ours, theirs in zip(split.log, whole.log, strict=True):
            for name in names:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name


def test_a_step_without_any_pair_has_no_metric_over_pairs(tmp_path: Path) -> None:
    policy = tiny_language_model()
    rankings = with_ties(ragged_rankings())[3:7]
    job = tiny_job(tmp_path / "job", max_steps=1, batch_size=4, runtime={"per_device_train_batch_size": 2})
    trained = train_policy(policy, Rrhf(kind="rrhf"), None, ranking_examples(policy.conversation, rankings), job)
    assert {"rank_loss", "sft_loss"} <= trained.log[0].keys()
    assert "accuracy" not in trained.log[0]
