"""The losses of demonstrations, by hand."""

import pytest
import torch

from aligndistill.objectives.inputs import Ranked
from aligndistill.objectives.supervised import step_by_step, supervised

# Answers of 2 and 1 tokens with 1 and 2 nats, rationales of 4 and 6 tokens with 8 and 3 nats.
NATS, TOKENS, IS_RATIONALE = [1.0, 8.0, 2.0, 3.0], [2, 4, 1, 6], [0.0, 1.0, 0.0, 1.0]
ANSWERS, RATIONALES = 3 / 3, 11 / 10
SHARE = torch.tensor(10 / 13)


def demonstrated(rows: slice = slice(None)) -> Ranked:
    nats, tokens, scores = (torch.tensor(one)[rows, None] for one in (NATS, TOKENS, IS_RATIONALE))
    return Ranked((-nats).requires_grad_(), None, scores, tokens, torch.ones_like(tokens, dtype=torch.bool))


def test_one_mean_over_all_tokens() -> None:
    assert supervised(demonstrated()).value.item() == pytest.approx(14 / 13)


@pytest.mark.parametrize("weight", [0.5, 0.2])
def test_two_means_over_the_tokens_of_each_task(weight: float) -> None:
    loss = step_by_step(demonstrated(), weight, SHARE)
    assert loss.value.item() == pytest.approx((1 - weight) * ANSWERS + weight * RATIONALES)
    assert loss.metrics["answer_nll"].tolist() == pytest.approx([0.5, float("nan"), 2.0, float("nan")], nan_ok=True)
    assert loss.metrics["rationale_nll"].tolist() == pytest.approx([float("nan"), 2.0, float("nan"), 0.5], nan_ok=True)


def test_a_token_of_a_long_rationale_pulls_less() -> None:
    ranked = demonstrated()
    step_by_step(ranked, 0.5, SHARE).value.backward()
    assert ranked.policy_BK.grad is not None
    assert ranked.policy_BK.grad[:, 0].tolist() == pytest.approx([-0.5 / 3, -0.5 / 10, -0.5 / 3, -0.5 / 10])


@pytest.mark.parametrize("parts", [[slice(0, 1), slice(1, 4)], [slice(0, 2), slice(2, 4)], [slice(n, n + 1) for n in range(4)]])
def test_micro_batches_of_one_task_alone_add_up_to_the_step(parts: list[slice]) -> None:
    shares = [step_by_step(demonstrated(part), 0.3, SHARE).value.item() * sum(TOKENS[part]) / 13 for part in parts]
    assert sum(shares) == pytest.approx(0.7 * ANSWERS + 0.3 * RATIONALES)


def test_a_task_without_tokens_in_the_step_adds_nothing() -> None:
    alone = step_by_step(demonstrated(slice(0, 1)), 0.5, torch.tensor(0.0))
    assert alone.value.item() == pytest.approx(0.5 * 0.5)
