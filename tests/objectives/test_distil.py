import math
from dataclasses import replace

import pytest
import torch

from aligndistill.objectives.distil import Distilled, distil

DISTILLED = Distilled(
    divergence_S=torch.tensor([1.0, 2.0, 3.0, 6.0]),
    logprobs_S=torch.tensor([-4.0, -2.0, -8.0, -1.0]),
    imitated_S=torch.tensor([True, True, False, False]),
)


def test_both_terms_are_means_over_all_tokens() -> None:
    loss = distil(DISTILLED, sft_weight=0.25, scale=4.0)
    assert loss.value.item() == pytest.approx(0.75 * 4 * 12 / 4 + 0.25 * 6 / 4)


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 3.0), (1.0, 6 / 4)])
def test_the_weights_ends_are_one_term_alone(weight: float, expected: float) -> None:
    assert distil(DISTILLED, sft_weight=weight, scale=1.0).value.item() == pytest.approx(expected)


def test_tokens_that_are_no_example_get_no_supervised_gradient() -> None:
    logprobs_S, divergence_S = DISTILLED.logprobs_S.clone().requires_grad_(), DISTILLED.divergence_S.clone().requires_grad_()
    loss = distil(Distilled(divergence_S, logprobs_S, DISTILLED.imitated_S), sft_weight=0.5, scale=2.0)
    loss.value.backward()
    assert logprobs_S.grad is not None
    assert logprobs_S.grad.tolist() == [-0.125, -0.125, 0, 0]
    assert divergence_S.grad is not None
    assert divergence_S.grad.tolist() == [0.25] * 4


def test_metrics_are_per_token_and_unscaled() -> None:
    metrics = distil(DISTILLED, sft_weight=0.5, scale=9.0).metrics
    assert metrics["divergence"].tolist() == [1, 2, 3, 6]
    assert metrics["nll"][:2].tolist() == [4, 2]
    assert all(math.isnan(value) for value in metrics["nll"][2:].tolist())


def test_the_hidden_term_is_added_to_the_others() -> None:
    hidden_S = torch.tensor([0.5, 0.0, 1.5, 6.0], requires_grad=True)
    for weight in (0.0, 0.25, 1.0):
        plain = distil(DISTILLED, sft_weight=weight, scale=2.0)
        loss = distil(replace(DISTILLED, hidden_S=hidden_S), sft_weight=weight, scale=2.0, hidden_weight=0.1)
        assert loss.value.item() == pytest.approx(plain.value.item() + 0.1 * 8 / 4)
        assert "hidden" not in plain.metrics
        assert loss.metrics["hidden"].tolist() == [0.5, 0.0, 1.5, 6.0]
    (gradient_S,) = torch.autograd.grad(loss.value, hidden_S)
    assert gradient_S.tolist() == pytest.approx([0.1 / 4] * 4)


def test_micro_batches_weighted_by_their_tokens_are_the_batch() -> None:
    whole = distil(DISTILLED, sft_weight=0.3, scale=2.0).value
    parts = [
        Distilled(DISTILLED.divergence_S[one], DISTILLED.logprobs_S[one], DISTILLED.imitated_S[one])
        for one in (slice(0, 1), slice(1, 4))
    ]
    values = [distil(part, sft_weight=0.3, scale=2.0).value for part in parts]
    torch.testing.assert_close(values[0] / 4 + values[1] * 3 / 4, whole)
