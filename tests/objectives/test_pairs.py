import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from aligndistill.objectives.best_of_n import best_of_n
from aligndistill.objectives.bradley_terry import bradley_terry_loss
from aligndistill.objectives.cpo import cpo
from aligndistill.objectives.dpo import dpo
from aligndistill.objectives.inputs import Loss, Ranked
from aligndistill.objectives.kto import kto
from aligndistill.objectives.orpo import orpo
from aligndistill.objectives.pairs import best, labelled_pairs, mean_over_pairs, ordered_pairs, pair_metric, pair_weights
from aligndistill.objectives.pro import pro
from aligndistill.objectives.rrhf import rrhf
from aligndistill.objectives.simpo import simpo
from aligndistill.objectives.sppo import sppo


def reward_model(ranked: Ranked) -> Loss:
    """The reward model's loss in the shape of the others: the policy's slots hold rewards."""
    return bradley_terry_loss(ranked.policy_BK / 10, ranked.scores_BK, ranked.valid_BK, labels="soft", margin=0.5, centering=0.01)


def kto_at(baseline_nats: float, **settings: Any) -> Callable[[Ranked], Loss]:
    """KTO in the shape of the others: with the baseline of some optimiser step."""
    return lambda ranked: kto(dataclasses.replace(ranked, baseline_nats=torch.tensor(baseline_nats)), beta=0.1, **settings)


OBJECTIVES: dict[str, Callable[[Ranked], Loss]] = {
    "bradley_terry": reward_model,
    "dpo": lambda ranked: dpo(ranked, beta=0.1),
    "dpo_soft": lambda ranked: dpo(ranked, beta=0.1, labels="soft", label_smoothing=0.1),
    "ipo": lambda ranked: dpo(ranked, beta=0.1, loss="ipo"),
    "hinge": lambda ranked: dpo(ranked, beta=0.1, loss="hinge"),
    "rrhf": rrhf,
    "pro": pro,
    "best_of_n": best_of_n,
    "rpo": lambda ranked: dpo(ranked, beta=0.1, sft_weight=0.5),
    "simpo": simpo,
    "simpo_soft": lambda ranked: simpo(ranked, labels="soft", sft_weight=0.2),
    "cpo": cpo,
    "cpo_soft": lambda ranked: cpo(ranked, labels="soft"),
    "orpo": orpo,
    "orpo_soft": lambda ranked: orpo(ranked, labels="soft"),
    "kto": kto_at(1.5, desirable_weight=1.2),
    "kto_soft": kto_at(-0.5, labels="soft", undesirable_weight=0.8),
    "sppo": sppo,
}

objective = pytest.mark.parametrize("name", OBJECTIVES)


def a_batch(prompts: int = 4, dtype: torch.dtype = torch.float64, seed: int = 0) -> Ranked:
    """Four answers each, best first, two of them tied in every prompt; row 1 has 3 answers, row 2 has 2."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return (torch.rand(prompts, 4, generator=generator, dtype=torch.float64) * (high - low) + low).to(dtype)

    scores_BK = uniform(-2, 2).sort(dim=1, descending=True).values
    scores_BK[:, 2] = scores_BK[:, 1]
    valid_BK = torch.ones(prompts, 4, dtype=torch.bool)
    valid_BK[1, 3:] = False
    valid_BK[2, 2:] = False
    return Ranked(
        policy_BK=uniform(-30, -5),
        reference_BK=uniform(-30, -5),
        scores_BK=scores_BK,
        lengths_BK=torch.randint(3, 12, (prompts, 4), generator=generator),
        valid_BK=valid_BK,
    )


def rows(ranked: Ranked, index: slice | list[int]) -> Ranked:
    assert ranked.reference_BK is not None
    return Ranked(
        ranked.policy_BK[index],
        ranked.reference_BK[index],
        ranked.scores_BK[index],
        ranked.lengths_BK[index],
        ranked.valid_BK[index],
    )


def with_gradient(run: Callable[[Ranked], Loss], ranked: Ranked) -> tuple[Loss, Tensor]:
    policy_BK = ranked.policy_BK.clone().requires_grad_()
    loss = run(dataclasses.replace(ranked, policy_BK=policy_BK))
    (gradient_BK,) = torch.autograd.grad(loss.value, policy_BK)
    return loss, gradient_BK


# ------------------------------------------------------------------------------------------------------ pair arithmetic


def test_pairs_are_strictly_ordered_and_real() -> None:
    scores_BK = torch.tensor([[3.0, 1.0, 1.0, 9.0]])
    valid_BK = torch.tensor([[True, True, True, False]])
    mask_BKK = ordered_pairs(scores_BK, valid_BK)
    assert mask_BKK[0].nonzero().tolist() == [[0, 1], [0, 2]]
    assert pair_weights(mask_BKK, torch.float64)[0, 0].tolist() == [0, 1 / 2, 1 / 2, 0]


def test_each_tied_pair_of_real_answers_has_a_soft_label_once() -> None:
    scores_BK = torch.tensor([[3.0, 1.0, 1.0, 1.0, 3.0]])
    valid_BK = torch.tensor([[True, True, True, True, False]])
    soft_BKK = labelled_pairs(scores_BK, valid_BK, "soft")
    assert soft_BKK[0].nonzero().tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert pair_weights(soft_BKK, torch.float64)[0, 1].tolist() == [0, 0, 1 / 6, 1 / 6, 0]
    assert torch.equal(labelled_pairs(scores_BK, valid_BK, "hard"), ordered_pairs(scores_BK, valid_BK))


def test_a_prompt_without_pairs_adds_nothing_to_the_loss_and_counts_in_its_mean() -> None:
    mask_BKK = ordered_pairs(torch.tensor([[2.0, 1.0], [1.0, 1.0]]), torch.ones(2, 2, dtype=torch.bool))
    values_BKK = torch.full((2, 2, 2), 6.0)
    assert mean_over_pairs(values_BKK, mask_BKK).item() == 6.0 / 2
    torch.testing.assert_close(pair_metric(values_BKK, mask_BKK), torch.tensor([6.0, torch.nan]), equal_nan=True)


def test_the_best_of_equals_is_the_first_and_never_padding() -> None:
    values_BK = torch.tensor([[1.0, 2.0, 3.0]])
    valid_BK = torch.tensor([[True, True, False]])
    assert best(values_BK, torch.tensor([[4.0, 4.0, 9.0]]), valid_BK).tolist() == [1.0]
    assert best(values_BK, torch.tensor([[-5.0, -4.0, 0.0]]), valid_BK).tolist() == [2.0]


# --------------------------------------------------------------------------------------------- what all objectives keep


@objective
@pytest.mark.parametrize("garbage", [0.0, 1e30, math.inf, -math.inf, math.nan])
def test_padding_changes_neither_loss_nor_gradient_and_gets_none(name: str, garbage: float) -> None:
    ranked = a_batch()
    poisoned = dataclasses.replace(
        ranked,
        policy_BK=torch.where(ranked.valid_BK, ranked.policy_BK, garbage),
        reference_BK=torch.where(ranked.valid_BK, ranked.reference_BK, garbage),
        scores_BK=torch.where(ranked.valid_BK, ranked.scores_BK, garbage),
        lengths_BK=torch.where(ranked.valid_BK, ranked.lengths_BK, 0),
    )
    loss, gradient_BK = with_gradient(OBJECTIVES[name], ranked)
    poisoned_loss, poisoned_gradient_BK = with_gradient(OBJECTIVES[name], poisoned)
    torch.testing.assert_close(poisoned_loss.value, loss.value, rtol=0, atol=0)
    torch.testing.assert_close(poisoned_gradient_BK, gradient_BK, rtol=0, atol=0)
    torch.testing.assert_close(poisoned_loss.metrics, loss.metrics, rtol=0, atol=0, equal_nan=True)
    assert (poisoned_gradient_BK[~ranked.valid_BK] == 0).all()
    assert (poisoned_gradient_BK != 0).any()


@objective
def test_further_padding_changes_nothing(name: str) -> None:
    ranked = a_batch()

    def padded(values_BK: Tensor) -> Tensor:
        return torch.nn.functional.pad(values_BK, (0, 3))

    assert ranked.reference_BK is not None
    wider = Ranked(
        padded(ranked.policy_BK),
        padded(ranked.reference_BK),
        padded(ranked.scores_BK),
        padded(ranked.lengths_BK),
        padded(ranked.valid_BK),
    )
    torch.testing.assert_close(OBJECTIVES[name](wider).value, OBJECTIVES[name](ranked).value, rtol=1e-12, atol=0)


@objective
def test_an_answer_of_no_tokens_is_finite(name: str) -> None:
    ranked = a_batch()
    policy_BK, lengths_BK = ranked.policy_BK.clone(), ranked.lengths_BK.clone()
    policy_BK[:, 0], lengths_BK[:, 0] = 0.0, 0
    loss, gradient_BK = with_gradient(OBJECTIVES[name], dataclasses.replace(ranked, policy_BK=policy_BK, lengths_BK=lengths_BK))
    assert loss.value.isfinite()
    assert gradient_BK.isfinite().all()


@objective
def test_equal_micro_batches_average_to_the_batch(name: str) -> None:
    ranked = a_batch(prompts=6)
    loss, gradient_BK = with_gradient(OBJECTIVES[name], ranked)
    parts = [with_gradient(OBJECTIVES[name], rows(ranked, slice(start, start + 2))) for start in (0, 2, 4)]
    torch.testing.assert_close(torch.stack([part.value for part, _ in parts]).mean(), loss.value, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]) / 3, gradient_BK, rtol=1e-12, atol=1e-15)
    for key, metric in loss.metrics.items():
        assert metric.shape == (6,)
        torch.testing.assert_close(torch.cat([part.metrics[key] for part, _ in parts]), metric, rtol=1e-12, atol=0)


@objective
def test_the_order_of_prompts_and_of_tied_answers_does_not_matter(name: str) -> None:
    ranked = a_batch()
    loss, gradient_BK = with_gradient(OBJECTIVES[name], ranked)

    other_way = with_gradient(OBJECTIVES[name], rows(ranked, [3, 2, 1, 0]))
    torch.testing.assert_close(other_way[0].value, loss.value, rtol=1e-12, atol=0)
    torch.testing.assert_close(other_way[1].flip(0), gradient_BK, rtol=1e-12, atol=1e-15)

    # Responses 1 and 2 are tied; row 2 has no response 2.
    order_BK = torch.tensor([[0, 2, 1, 3], [0, 2, 1, 3], [0, 1, 2, 3], [0, 2, 1, 3]])
    assert ranked.reference_BK is not None
    swapped = Ranked(
        ranked.policy_BK.gather(1, order_BK),
        ranked.reference_BK.gather(1, order_BK),
        ranked.scores_BK,
        ranked.lengths_BK.gather(1, order_BK),
        ranked.valid_BK,
    )
    assert not torch.equal(swapped.policy_BK, ranked.policy_BK)
    swapped_loss, swapped_gradient_BK = with_gradient(OBJECTIVES[name], swapped)
    torch.testing.assert_close(swapped_loss.value, loss.value, rtol=1e-12, atol=0)
    torch.testing.assert_close(swapped_gradient_BK, gradient_BK.gather(1, order_BK), rtol=1e-12, atol=1e-15)


@objective
def test_inputs_are_left_as_they_were(name: str) -> None:
    ranked = a_batch()
    with_gradient(OBJECTIVES[name], ranked)
    torch.testing.assert_close(dataclasses.asdict(ranked), dataclasses.asdict(a_batch()), rtol=0, atol=0)


@objective
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    ranked = a_batch()
    policy_BK = ranked.policy_BK.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda policy: OBJECTIVES[name](dataclasses.replace(ranked, policy_BK=policy)).value, (policy_BK,)
    )


@objective
def test_float32_gives_what_float64_gives(name: str) -> None:
    single = a_batch(dtype=torch.float32)
    assert single.reference_BK is not None
    double = Ranked(
        single.policy_BK.double(), single.reference_BK.double(), single.scores_BK.double(), single.lengths_BK, single.valid_BK
    )
    value = OBJECTIVES[name](single).value
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), OBJECTIVES[name](double).value, rtol=1e-5, atol=1e-6)


@objective
def test_double_scores_and_whole_lengths_go_with_a_single_precision_policy(name: str) -> None:
    single = a_batch(dtype=torch.float32)
    mixed = dataclasses.replace(single, scores_BK=single.scores_BK.double(), lengths_BK=single.lengths_BK.long())
    loss, gradient_BK = with_gradient(OBJECTIVES[name], mixed)
    assert loss.value.dtype == gradient_BK.dtype == torch.float32
    torch.testing.assert_close(loss.value, OBJECTIVES[name](single).value)


@objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("signs", [(1, -1), (-1, 1), (-1, -1)])
def test_extreme_inputs_stay_finite(name: str, dtype: torch.dtype, signs: tuple[int, int]) -> None:
    extreme_BK = torch.tensor([[signs[0] * 1e4, signs[1] * 1e4, -1.0, signs[0] * 1e4]], dtype=dtype)
    ranked = Ranked(
        policy_BK=extreme_BK,
        reference_BK=-extreme_BK,
        scores_BK=torch.tensor([[1e4, 50.0, 50.0 - 1e-3, -1e4]], dtype=dtype),
        lengths_BK=torch.tensor([[1, 1, 3, 1000]]),
        valid_BK=torch.ones(1, 4, dtype=torch.bool),
    )
    loss, gradient_BK = with_gradient(OBJECTIVES[name], ranked)
    assert loss.value.isfinite()
    assert gradient_BK.isfinite().all()
    assert all(metric.isfinite() and not metric.requires_grad for metric in loss.metrics.values())


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        *((name, answers) for name in ("dpo", "rpo", "ipo", "hinge", "pro", "simpo", "cpo", "orpo") for answers in (1, 3)),
        *((name, answers) for name in ("kto", "kto_soft") for answers in (1, 3)),
        *((name, 1) for name in ("bradley_terry", "dpo_soft", "simpo_soft", "cpo_soft", "orpo_soft")),  # a tie is a soft pair
        ("sppo", 1),  # its ties are drawn to the reference
    ],
)
def test_a_prompt_that_is_all_tied_or_has_one_answer_costs_nothing_and_moves_nothing(name: str, answers: int) -> None:
    ranked = Ranked(
        policy_BK=torch.tensor([[-3.0, -20.0, -7.0]])[:, :answers],
        reference_BK=torch.tensor([[-4.0, -2.0, -9.0]])[:, :answers],
        scores_BK=torch.full((1, answers), 1.5),
        lengths_BK=torch.full((1, answers), 5),
        valid_BK=torch.ones(1, answers, dtype=torch.bool),
    )
    loss, gradient_BK = with_gradient(OBJECTIVES[name], ranked)
    assert loss.value.item() == 0
    assert (gradient_BK == 0).all()


@objective
def test_a_row_of_padding_alone_costs_nothing(name: str) -> None:
    ranked = rows(a_batch(), slice(0, 1))
    empty = dataclasses.replace(ranked, valid_BK=torch.zeros(1, 4, dtype=torch.bool))
    loss, gradient_BK = with_gradient(OBJECTIVES[name], empty)
    assert loss.value.item() == 0
    assert (gradient_BK == 0).all()
