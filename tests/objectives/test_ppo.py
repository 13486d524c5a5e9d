import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aligndistill.objectives.inputs import Loss
from aligndistill.objectives.kl import LOG_RATIO_LIMIT
from aligndistill.objectives.ppo import Learned, UpdateBatch, ppo

NAN, INF = math.nan, math.inf
MASK_NR = torch.tensor([[True, True, True], [True, False, False]])
BEFORE = [[-1.0, -2.0, -0.5], [-1.0, NAN, INF]]
RATIOS = [[1.5, 0.5, 1.1], [0.6, 1.0, 1.0]]
ADVANTAGES = [[2.0, -1.0, 3.0], [4.0, INF, NAN]]


def tensor(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def learned() -> Learned:
    before_NR = tensor(BEFORE)
    return Learned(
        policy_NR=(before_NR + tensor(RATIOS).log()).requires_grad_(),
        entropy_NR=tensor([[1.0, 2.0, 3.0], [2.0, NAN, NAN]]).requires_grad_(),
        values_NR=tensor([[1.0, 0.0, 2.0], [-1.0, INF, NAN]]).requires_grad_(),
    )


def collected() -> UpdateBatch:
    return UpdateBatch(
        policy_NR=tensor(BEFORE),
        values_NR=tensor([[0.9, 0.5, 2.0], [0.0, NAN, INF]]),
        advantages_NR=tensor(ADVANTAGES),
        returns_NR=tensor([[2.0, 1.0, 3.0], [-2.0, INF, NAN]]),
        mask_NR=MASK_NR,
    )


def loss(of: Learned, to: UpdateBatch, **settings: float | None) -> Loss:
    common = {"clip_range": 0.2, "value_clip_range": 0.2, "value_coefficient": 0.1, "entropy_coefficient": 0.0, **settings}
    return ppo(of, to, **common)  # type: ignore[arg-type]


def test_losses_by_hand() -> None:
    found = loss(learned(), collected(), entropy_coefficient=0.01)
    # ratio * A and clipped ratio * A, the smaller of each: (3, 2.4) (-0.5, -0.8) (3.3, 3.3) (2.4, 3.2)
    policy_loss = -(2.4 - 0.8 + 3.3 + 2.4) / 4
    # Errors of the value, and of the value within 0.2 of the old one (1, 0.3, 2, -0.2), the larger square of each.
    value_loss = 0.5 * (1.0**2 + 1.0**2 + 1.0**2 + 1.8**2) / 4
    assert found.value.item() == pytest.approx(policy_loss + 0.1 * value_loss - 0.01 * 2.0)
    ratios = (1.5, 0.5, 1.1, 0.6)
    expected = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy_nats": 2.0,
        "clip_fraction": 2 / 4,  # the second ratio is outside, too, and clipping makes no difference to the fourth
        "update_kl_nats": sum(ratio - 1 - math.log(ratio) for ratio in ratios) / 4,
        "ratio_mean": sum(ratios) / 4,
        "ratio_max": 1.5,
    }
    assert {name: value.item() for name, value in found.metrics.items()} == pytest.approx(expected)


def test_gradients_by_hand_and_none_from_padding() -> None:
    now = learned()
    loss(now, collected(), entropy_coefficient=0.01).value.backward()
    # d(-ratio * A)/d log-prob = -ratio * A where the unclipped term is the smaller gain, and nothing where it is clipped.
    torch.testing.assert_close(now.policy_NR.grad, tensor([[0.0, 0.0, -3.3 / 4], [-2.4 / 4, 0.0, 0.0]]))
    # d(error^2 / 2) = error, where the free value has the larger error: 1 - 2, 0 - 1, 2 - 3; the fourth is clipped.
    torch.testing.assert_close(now.values_NR.grad, 0.1 * tensor([[-1 / 4, -1 / 4, -1 / 4], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(now.entropy_NR.grad, -0.01 / 4 * MASK_NR.double())


def test_the_value_is_free_without_a_clip_range() -> None:
    now = learned()
    found = loss(now, collected(), value_clip_range=None)
    assert found.metrics["value_loss"].item() == pytest.approx(0.5 * (1 + 1 + 1 + 1) / 4)
    found.value.backward()
    torch.testing.assert_close(now.values_NR.grad, 0.1 * tensor([[-1 / 4, -1 / 4, -1 / 4], [1 / 4, 0.0, 0.0]]))


def test_before_the_first_step_the_gradient_is_that_of_the_policy_gradient() -> None:
    before = collected()
    policy_NR = before.policy_NR.clone().requires_grad_()
    found = loss(Learned(policy_NR, torch.zeros(2, 3), torch.zeros(2, 3)), before, value_coefficient=0.0)
    found.value.backward()
    assert policy_NR.grad is not None
    torch.testing.assert_close(policy_NR.grad[MASK_NR], -tensor(ADVANTAGES)[MASK_NR] / 4)
    assert found.metrics["ratio_max"].item() == found.metrics["ratio_mean"].item() == 1
    assert found.metrics["clip_fraction"].item() == found.metrics["update_kl_nats"].item() == 0


def test_nothing_that_counts_costs_nothing() -> None:
    now, before = learned(), collected()
    nothing = UpdateBatch(before.policy_NR, before.values_NR, before.advantages_NR, before.returns_NR, torch.zeros_like(MASK_NR))
    found = loss(now, nothing, entropy_coefficient=0.01)
    found.value.backward()
    assert found.value.item() == 0
    assert now.policy_NR.grad is not None
    assert not now.policy_NR.grad.any()


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(-10, 10))
def test_a_ratio_never_runs_to_infinity(difference: float, advantage: float) -> None:
    one = torch.zeros(1, 1, dtype=torch.float64)
    policy_NR = (one + difference).requires_grad_()
    before = UpdateBatch(one, one, one + advantage, one, torch.ones(1, 1, dtype=torch.bool))
    found = loss(Learned(policy_NR, one, one), before)
    found.value.backward()
    assert found.metrics["ratio_max"].item() <= math.exp(LOG_RATIO_LIMIT) * (1 + 1e-9)
    assert policy_NR.grad is not None
    assert bool(policy_NR.grad.isfinite().all())


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(1, 5))
def test_parts_of_a_batch_weighted_by_their_tokens_are_the_whole(mask: list[bool], cut: int) -> None:
    """What the trainer relies on when it splits a step into micro-batches."""
    generator = torch.Generator().manual_seed(cut)
    columns = [torch.randn(6, 1, generator=generator, dtype=torch.float64) for _ in range(7)]
    mask_NR = torch.tensor(mask).unsqueeze(1)

    def of(rows: slice) -> Loss:
        policy, entropy, values, before, old_values, advantages, returns = (column[rows] for column in columns)
        return loss(
            Learned(policy, entropy, values),
            UpdateBatch(before, old_values, advantages, returns, mask_NR[rows]),
            entropy_coefficient=0.01,
        )

    parts = [slice(0, cut), slice(cut, 6)]
    total = sum(of(part).value * mask_NR[part].sum() for part in parts)
    torch.testing.assert_close(total, of(slice(0, 6)).value * mask_NR.sum())
