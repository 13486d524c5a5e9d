"""From rollouts to what an update learns from, with numbers worked out by hand."""

import math
from statistics import fmean, pstdev

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aligndistill.config.objectives import Ppo
from aligndistill.models.groups import collate
from aligndistill.records import Finish
from aligndistill.training.on_policy.experience import RunningMoments, experience_of
from aligndistill.training.on_policy.rollouts import PolicyPrompt, Rollout
from tests.tiny_models import user


def rollout(name: str, answers: list[tuple[int, Finish, float | None]]) -> Rollout:
    """Answers of these lengths; token t has log-prob -1 - t, the reference's is 0.5 lower, and its value is 0.1 * t."""
    rows = [list(range(5, 5 + length)) for length, _, _ in answers]
    logprobs = [[-1.0 - t for t in range(length)] for length, _, _ in answers]
    return Rollout(
        prompt=PolicyPrompt(name, user(name), [5, 6]),
        responses=rows,
        texts=tuple("x" * length for length, _, _ in answers),
        finishes=tuple(finish for _, finish, _ in answers),
        logprobs=logprobs,
        reference=[[value - 0.5 for value in row] for row in logprobs],
        values=[[0.1 * t for t in range(length)] for length, _, _ in answers],
        scores=[score for _, _, score in answers],
    )


def ppo(**more: object) -> Ppo:
    return Ppo.model_validate({"kind": "ppo", "gae_lambda": 1.0, "whiten_advantages": False, **more})


FOUR = [
    rollout("a", [(3, "stop", 2.0), (1, "length", -1.0)]),
    rollout("b", [(2, "stop", 0.5), (2, "length", 4.0)]),
]
NO_MOMENTS = RunningMoments()


def test_the_return_is_the_score_less_the_rest_of_the_penalty_and_what_is_unfinished_pays_more() -> None:
    found = experience_of(FOUR, ppo(missing_eos_penalty=1.5), 0.2, NO_MOMENTS)
    # Each token costs 0.2 * 0.5; with gamma = lambda = 1 the return is all that is still to come.
    expected = torch.tensor(
        [[[2 - 0.3, 2 - 0.2, 2 - 0.1], [-2.5 - 0.1, 0, 0]], [[0.5 - 0.2, 0.5 - 0.1, 0], [2.5 - 0.2, 2.5 - 0.1, 0]]]
    )
    torch.testing.assert_close(found.returns_PKR, expected)
    assert found.counted_PKR.sum(-1).tolist() == [[3, 1], [2, 2]]
    torch.testing.assert_close(found.advantages_PKR, expected - found.values_PKR)


def test_metrics_by_hand() -> None:
    metrics = experience_of(FOUR, ppo(missing_eos_penalty=1.5), 0.2, NO_MOMENTS).metrics
    scores = [2.0, -1.0, 0.5, 4.0]
    expected = {
        "score": fmean(scores),
        "score_std": pstdev(scores),
        "reward": fmean([2 - 0.3, -2.5 - 0.1, 0.5 - 0.2, 2.5 - 0.2]),
        "kl_k1_nats": 0.5 * 8 / 4,
        "kl_k3_nats": (math.exp(-0.5) - 1 + 0.5) * 8 / 4,
        "kl_coefficient": 0.2,
        "eos_rate": 0.5,
        "length_tokens": 2.0,
        "unscored": 0.0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert metrics.keys() - expected.keys() == {"explained_variance"}


@pytest.mark.parametrize("whiten", [False, True])
def test_answers_without_a_score_are_as_if_they_had_not_been_sampled(whiten: bool) -> None:
    holes = [
        rollout("a", [(3, "stop", 2.0), (5, "length", None), (1, "length", -1.0)]),
        rollout("b", [(4, "stop", None), (2, "stop", 0.5), (2, "length", 4.0)]),
    ]
    config = ppo(whiten_advantages=whiten, missing_eos_penalty=1.5)
    found, without = (experience_of(rollouts, config, 0.2, NO_MOMENTS) for rollouts in (holes, FOUR))
    for name in ("advantages_PKR", "returns_PKR", "counted_PKR"):
        kept_N = [getattr(found, name)[place][:3] for place in ((0, 0), (0, 2), (1, 1), (1, 2))]
        expected = getattr(without, name).flatten(0, 1)
        torch.testing.assert_close(torch.stack(kept_N), expected)
        assert not getattr(found, name)[0, 1].any()
        assert not getattr(found, name)[1, 0].any()
    for name in ("score", "score_std", "reward", "explained_variance"):
        assert found.metrics[name] == pytest.approx(without.metrics[name])
    assert found.metrics["unscored"] == pytest.approx(1 / 3)


def test_whitened_advantages_leave_returns_as_they_are() -> None:
    plain, whitened = (experience_of(FOUR, ppo(whiten_advantages=whiten), 0.2, NO_MOMENTS) for whiten in (False, True))
    assert torch.equal(plain.returns_PKR, whitened.returns_PKR)
    real = whitened.advantages_PKR[whitened.counted_PKR]
    assert real.mean().item() == pytest.approx(0, abs=1e-6)
    assert real.std(unbiased=False).item() == pytest.approx(1, rel=1e-5)


def test_scores_are_normalised_by_all_so_far_and_then_cut() -> None:
    moments = NO_MOMENTS.with_scores([0.0, 10.0, *(2.0, -1.0, 0.5, 4.0)])
    mean, deviation = fmean([0, 10, 2, -1, 0.5, 4]), pstdev([0, 10, 2, -1, 0.5, 4])
    found = experience_of(FOUR, ppo(normalise_rewards=True, reward_clip=0.8, missing_eos_penalty=1.0), 0.0, moments)
    shaped = [max(-0.8, min(0.8, (score - mean) / deviation)) for score in (2.0, -1.0, 0.5, 4.0)]
    assert shaped[1] == -0.8 < shaped[2] < shaped[0] < shaped[3] < 0.8
    expected = [shaped[0], shaped[1] - 1, shaped[2], shaped[3] - 1]  # the penalty is no part of the score
    assert found.returns_PKR[:, :, 0].flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert found.metrics["score"] == pytest.approx(fmean([2.0, -1.0, 0.5, 4.0]))


@given(st.lists(st.floats(-1e3, 1e3), max_size=12), st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12))
def test_running_moments_are_those_of_all_at_once(some: list[float], others: list[float]) -> None:
    moments = NO_MOMENTS.with_scores(some).with_scores(others)
    assert moments == NO_MOMENTS.with_scores([*some, *others])
    assert (moments.count, moments.mean) == (len(some + others), pytest.approx(fmean([*some, *others]), abs=1e-6))
    deviation = pstdev([*some, *others])
    if deviation > 1e-3:
        assert moments.normalised(7.0) == pytest.approx((7.0 - fmean([*some, *others])) / deviation, rel=1e-6, abs=1e-6)


def test_the_first_scores_all_alike_are_no_distance_apart() -> None:
    assert NO_MOMENTS.with_scores([3.0, 3.0]).normalised(3.0) == 0
    assert NO_MOMENTS.normalised(2.0) == 2.0


@pytest.mark.parametrize("share", [True, False])
def test_a_micro_batch_is_some_of_the_prompts(share: bool) -> None:
    found = experience_of(FOUR, ppo(), 0.2, NO_MOMENTS)
    tensors = found.micro_batch([1], 0, share)
    assert tensors["tokens_BKR"].sum(-1).tolist() == [[2, 2]]
    assert tensors["logprobs_BKR"].tolist() == [[[-1.0, -2.0], [-1.0, -2.0]]]
    assert torch.equal(tensors["returns_BKR"], found.returns_PKR[1:, :, :2])
    assert torch.equal(tensors["counted_BKR"], tensors["tokens_BKR"])
    assert torch.equal(tensors["input_ids_NT"], collate([found.groups[1]], 0, share).input_ids_NT)
