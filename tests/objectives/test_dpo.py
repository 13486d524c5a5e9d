import math
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from trl import DPOTrainer

from aligndistill.objectives.dpo import dpo
from aligndistill.objectives.inputs import Loss, Ranked


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def one_prompt(policy: list[float], reference: list[float], scores: list[float], lengths: list[int] | None = None) -> Ranked:
    return Ranked(
        policy_BK=torch.tensor([policy], dtype=torch.float64),
        reference_BK=torch.tensor([reference], dtype=torch.float64),
        scores_BK=torch.tensor([scores], dtype=torch.float64),
        lengths_BK=torch.tensor([lengths or [1] * len(policy)]),
        valid_BK=torch.ones(1, len(policy), dtype=torch.bool),
    )


THREE = one_prompt([-10.0, -12.0, -7.0], [-11.0, -11.0, -9.0], [2.0, 1.0, 0.0], [5, 4, 2])
LOG_RATIOS = (-10.0 + 11.0, -12.0 + 11.0, -7.0 + 9.0)  # 1, -1, 2


def test_sigmoid_by_hand() -> None:
    loss = dpo(THREE, beta=0.5)
    gaps = [0.5 * (1 - -1), 0.5 * (1 - 2), 0.5 * (-1 - 2)]
    assert loss.value.item() == pytest.approx(sum(-log_sigmoid(gap) for gap in gaps) / 3)
    assert {key: value.nanmean().item() for key, value in loss.metrics.items()} == pytest.approx(
        {
            "rewards/chosen": 0.5 * (1 + 1 - 1) / 3,
            "rewards/rejected": 0.5 * (-1 + 2 + 2) / 3,
            "rewards/accuracies": 1 / 3,
            "rewards/margins": sum(gaps) / 3,
            "logps/chosen": (-10 - 10 - 12) / 3,
            "logps/rejected": (-12 - 7 - 7) / 3,
        }
    )


def test_hinge_by_hand() -> None:
    gaps = [0.5 * 2, 0.5 * -1, 0.5 * -3]
    assert dpo(THREE, beta=0.5, loss="hinge").value.item() == pytest.approx(sum(max(0, 1 - gap) for gap in gaps) / 3)


def test_ipo_by_hand_is_per_token() -> None:
    per_token = (1 / 5, -1 / 4, 2 / 2)
    h = [per_token[0] - per_token[1], per_token[0] - per_token[2], per_token[1] - per_token[2]]
    expected = sum((x - 1 / (2 * 0.5)) ** 2 for x in h) / 3
    assert dpo(THREE, beta=0.5, loss="ipo").value.item() == pytest.approx(expected)


def test_length_normalised_by_hand() -> None:
    per_token = (1 / 5, -1 / 4, 2 / 2)
    gaps = [5 * (per_token[0] - per_token[1]), 5 * (per_token[0] - per_token[2]), 5 * (per_token[1] - per_token[2])]
    expected = sum(-log_sigmoid(gap) for gap in gaps) / 3
    assert dpo(THREE, beta=5, loss="sigmoid_norm").value.item() == pytest.approx(expected)


def test_soft_labels_take_the_teachers_probability() -> None:
    ranked = one_prompt([-10.0, -12.0], [-11.0, -11.0], [1.5, 0.5])
    p = 1 / (1 + math.exp(-1.0))
    gap = 0.5 * 2
    assert dpo(ranked, beta=0.5, labels="soft").value.item() == pytest.approx(-(p * log_sigmoid(gap) + (1 - p) * log_sigmoid(-gap)))


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo"])
def test_a_tie_is_a_pair_of_probability_one_half_under_soft_labels(loss: Literal["sigmoid", "ipo", "hinge"]) -> None:
    # Log-ratios 1, -1 and 2; the second and the third answer are tied, and stand 3 apart.
    ranked = one_prompt([-10.0, -12.0, -7.0], [-11.0, -11.0, -9.0], [2.0, 1.0, 1.0])
    p = 1 / (1 + math.exp(-1.0))
    costs: dict[str, Callable[[float], float]] = {
        "sigmoid": lambda gap: -log_sigmoid(0.5 * gap),
        "hinge": lambda gap: max(0.0, 1 - 0.5 * gap),
        "ipo": lambda gap: (gap - 1) ** 2,  # beta is 1/2, and every answer has one token
    }
    cost = costs[loss]
    strict = [p * cost(gap) + (1 - p) * cost(-gap) for gap in (1 - -1, 1 - 2)]
    tie = (cost(-1 - 2) + cost(2 - -1)) / 2
    assert tie == pytest.approx({"sigmoid": 0.75 + math.log1p(math.exp(-1.5)), "hinge": 1.25, "ipo": 10.0}[loss])
    soft, hard = (dpo(ranked, beta=0.5, loss=loss, labels=labels) for labels in ("soft", "hard"))  # type: ignore[arg-type]
    assert soft.value.item() == pytest.approx((sum(strict) + tie) / 3)
    assert hard.value.item() == pytest.approx((cost(2) + cost(-1)) / 2)
    torch.testing.assert_close(soft.metrics, hard.metrics)  # over strict pairs, whatever the labels
    assert soft.metrics["rewards/accuracies"].tolist() == [1 / 2]


def test_soft_labels_are_met_when_rewards_differ_as_scores_do() -> None:
    scores = [2.0, 0.5, -1.0]
    beta = 0.1
    ranked = one_prompt([score / beta - 7 for score in scores], [-7.0] * 3, scores)
    ranked.policy_BK.requires_grad_()
    dpo(ranked, beta=beta, labels="soft").value.backward()
    assert ranked.policy_BK.grad is not None
    assert ranked.policy_BK.grad.abs().max() < 1e-15


def test_smoothing_applies_to_the_label_hard_or_soft() -> None:
    ranked = one_prompt([-10.0, -12.0], [-11.0, -11.0], [1.5, 0.5])
    gap = 0.5 * 2
    assert dpo(ranked, beta=0.5, label_smoothing=0.1).value.item() == pytest.approx(
        -(0.9 * log_sigmoid(gap) + 0.1 * log_sigmoid(-gap))
    )
    p = 1 / (1 + math.exp(-1.0))
    q = 0.9 * p + 0.1 * (1 - p)
    assert dpo(ranked, beta=0.5, labels="soft", label_smoothing=0.1).value.item() == pytest.approx(
        -(q * log_sigmoid(gap) + (1 - q) * log_sigmoid(-gap))
    )


def test_an_untrained_policy_costs_log_two() -> None:
    ranked = one_prompt([-10.0, -12.0, -7.0], [-10.0, -12.0, -7.0], [2.0, 1.0, 0.0])
    assert dpo(ranked, beta=0.1).value.item() == pytest.approx(math.log(2))


def test_rpo_adds_the_best_answers_nll_per_token() -> None:
    plain, rpo = dpo(THREE, beta=0.5), dpo(THREE, beta=0.5, sft_weight=0.2)
    assert rpo.value.item() == pytest.approx(plain.value.item() + 0.2 * 10 / 5)
    assert rpo.metrics["sft_loss"].tolist() == [2.0]
    assert plain.metrics.keys() == rpo.metrics.keys() - {"sft_loss"}


def test_rpos_gradient_is_dpos_plus_that_of_the_nll() -> None:
    ranked = some_pairs()
    ranked.policy_BK.requires_grad_()
    (both,) = torch.autograd.grad(dpo(ranked, beta=0.1, sft_weight=0.7).value, ranked.policy_BK)
    (plain,) = torch.autograd.grad(dpo(ranked, beta=0.1).value, ranked.policy_BK)
    nll = torch.zeros_like(plain)
    nll[:, 0] = -1 / ranked.lengths_BK[:, 0].double() / len(plain)
    torch.testing.assert_close(both, plain + 0.7 * nll, rtol=1e-12, atol=1e-15)


# ------------------------------------------------------------------------------------------------------------- oracles


def some_pairs(prompts: int = 16) -> Ranked:
    generator = torch.Generator().manual_seed(1)
    return Ranked(
        policy_BK=-torch.rand(prompts, 2, generator=generator, dtype=torch.float64) * 30,
        reference_BK=-torch.rand(prompts, 2, generator=generator, dtype=torch.float64) * 30,
        scores_BK=torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(prompts, 2),
        lengths_BK=torch.randint(1, 9, (prompts, 2), generator=generator),
        valid_BK=torch.ones(prompts, 2, dtype=torch.bool),
    )


class GivenLogprobs(torch.nn.Module):
    """Stands in for a causal model in TRL's loss: gives each row's log-probability at its first response token."""

    is_gradient_checkpointing = False

    def __init__(self, logps_BK: Tensor, width: int) -> None:
        super().__init__()
        rows = logps_BK.T.reshape(-1, 1)  # TRL stacks chosen above rejected
        self.log_probs = torch.cat([rows, rows.new_zeros(len(rows), width - 1)], dim=1)

    def forward(self, **_: Any) -> SimpleNamespace:
        zeros = torch.zeros_like(self.log_probs)
        return SimpleNamespace(log_probs=self.log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def trl_loss(ranked: Ranked, loss: str, beta: float) -> tuple[Tensor, dict[str, float]]:
    """What TRL's own `DPOTrainer._compute_loss` says of these log-probabilities, one prompt token before each response."""
    assert ranked.reference_BK is not None
    lengths = ranked.lengths_BK.T.reshape(-1, 1)
    width = int(lengths.max())
    completion_mask = torch.cat([torch.zeros_like(lengths), (torch.arange(width) < lengths).long()], dim=1)
    inputs = {
        "input_ids": torch.ones_like(completion_mask),
        "attention_mask": torch.ones_like(completion_mask),
        "completion_mask": completion_mask,
    }
    model = GivenLogprobs(ranked.policy_BK, width)
    trainer = SimpleNamespace(
        model=model,
        ref_model=GivenLogprobs(ranked.reference_BK, width),
        accelerator=SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=False,
        f_divergence_type="reverse_kl",
        loss_types=[loss],
        loss_weights=[1.0],
        beta=beta,
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    value = DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)
    return value, {key: values[0] for key, values in trainer._metrics["train"].items() if key.startswith(("rewards", "logps"))}


@pytest.mark.parametrize("loss", ["sigmoid", "sigmoid_norm", "ipo", "hinge"])
@pytest.mark.parametrize("beta", [0.01, 0.5])
def test_two_answers_a_prompt_cost_what_trl_charges(loss: Literal["sigmoid", "sigmoid_norm", "ipo", "hinge"], beta: float) -> None:
    ranked = some_pairs()
    ranked.policy_BK.requires_grad_()
    ours: Loss = dpo(ranked, beta=beta, loss=loss)
    theirs, metrics = trl_loss(ranked, loss, beta)
    torch.testing.assert_close(ours.value, theirs, rtol=1e-12, atol=0)
    (our_gradient,) = torch.autograd.grad(ours.value, ranked.policy_BK)
    (their_gradient,) = torch.autograd.grad(theirs, ranked.policy_BK)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-12, atol=1e-15)
    assert {key: value.nanmean().item() for key, value in ours.metrics.items()} == pytest.approx(metrics, rel=1e-6)


def test_smoothing_is_that_of_the_authors_code() -> None:
    # eric-mitchell/direct-preference-optimization, trainers.py, preference_loss; TRL 1.16 has it no more.
    ranked = some_pairs()
    assert ranked.reference_BK is not None
    logits = (ranked.policy_BK - ranked.reference_BK) @ torch.tensor([1.0, -1.0], dtype=torch.float64)
    expected = (-F.logsigmoid(0.1 * logits) * (1 - 0.2) - F.logsigmoid(-0.1 * logits) * 0.2).mean()
    torch.testing.assert_close(dpo(ranked, beta=0.1, label_smoothing=0.2).value, expected, rtol=1e-12, atol=0)
