import dataclasses
import math

import pytest
import torch

from aligndistill.objectives.inputs import Ranked
from aligndistill.objectives.pro import pro


def one_prompt(policy: list[float], lengths: list[int], scores: list[float]) -> Ranked:
    return Ranked(
        policy_BK=torch.tensor([policy], dtype=torch.float64),
        reference_BK=None,
        scores_BK=torch.tensor([scores], dtype=torch.float64),
        lengths_BK=torch.tensor([lengths]),
        valid_BK=torch.ones(1, len(policy), dtype=torch.bool),
    )


def paper_loss(means: list[float], rewards: list[float]) -> float:
    """L_PRO as the paper writes it, with divisions by temperatures, for distinct rewards, best first."""
    total = 0.0
    for k in range(len(means) - 1):
        temperature = {i: 1 / (rewards[k] - rewards[i]) for i in range(k + 1, len(means))}
        own = math.exp(means[k] / min(temperature.values()))
        others = sum(math.exp(means[i] / t) for i, t in temperature.items())
        total -= math.log(own / (own + others))
    return total


def test_three_answers_by_hand() -> None:
    # s = -10/5 = -2, -6/2 = -3, -4/4 = -1; gaps: first to the others 1 and 3, second to third 2
    loss = pro(one_prompt([-10.0, -6.0, -4.0], [5, 2, 4], [3.0, 2.0, 0.0]), sft_weight=0.05)
    first = -math.log(math.exp(-2 * 3) / (math.exp(-2 * 3) + math.exp(-3 * 1) + math.exp(-1 * 3)))
    second = -math.log(math.exp(-3 * 2) / (math.exp(-3 * 2) + math.exp(-1 * 2)))
    assert first + second == pytest.approx(paper_loss([-2, -3, -1], [3, 2, 0]))
    assert loss.metrics["rank_loss"].nanmean().item() == pytest.approx(first + second)
    assert loss.metrics["sft_loss"].nanmean().item() == pytest.approx(10)
    assert loss.value.item() == pytest.approx(first + second + 0.05 * (3 - 1) ** 2 * 10)
    assert loss.metrics["accuracy"].nanmean().item() == pytest.approx(1 / 3)


def test_distinct_scores_give_the_papers_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        scores = (torch.rand(5, generator=generator, dtype=torch.float64) * 4).sort(descending=True).values.tolist()
        lengths = torch.randint(1, 9, (5,), generator=generator).tolist()
        policy = (-torch.rand(5, generator=generator, dtype=torch.float64) * 20).tolist()
        means = [logp / length for logp, length in zip(policy, lengths, strict=True)]
        value = pro(one_prompt(policy, lengths, scores), sft_weight=0.0).value.item()
        assert value == pytest.approx(paper_loss(means, scores), rel=1e-10)


def test_the_order_of_the_row_does_not_matter() -> None:
    ordered = pro(one_prompt([-10.0, -6.0, -4.0], [5, 2, 4], [3.0, 2.0, 0.0])).value
    shuffled = pro(one_prompt([-4.0, -10.0, -6.0], [4, 5, 2], [0.0, 3.0, 2.0])).value
    torch.testing.assert_close(shuffled, ordered, rtol=1e-12, atol=0)


def test_temperatures_of_one_give_plackett_luce() -> None:
    # The others are equal and lower by 1, so every temperature is 1; what is left of Plackett-Luce is the choice of the first.
    ranked = one_prompt([-2.0, -3.0, -1.0, -4.0], [1, 1, 1, 1], [1.0, 0.0, 0.0, 0.0])
    plackett_luce = -torch.log_softmax(ranked.policy_BK[0], dim=0)[0]
    torch.testing.assert_close(pro(ranked, sft_weight=0.0).value, plackett_luce, rtol=1e-12, atol=0)


def test_two_answers_one_apart_give_bradley_terry_on_mean_log_probabilities() -> None:
    value = pro(one_prompt([-10.0, -4.0], [5, 4], [1.0, 0.0]), sft_weight=0.0).value.item()
    assert value == pytest.approx(-math.log(1 / (1 + math.exp(-(-2 - -1)))))


def test_tied_answers_share_a_rank_and_are_no_negatives_of_each_other() -> None:
    # Two best, tied at 3 (s = -2 and -1), then 1 (s = -3) and 0 (s = -4): n = 3 ranks.
    loss = pro(one_prompt([-2.0, -1.0, -3.0, -4.0], [1, 1, 1, 1], [3.0, 3.0, 1.0, 0.0]), sft_weight=0.05)
    best_two = [math.log(1 + (math.exp(-3 * 2) + math.exp(-4 * 3)) / math.exp(s * 3)) for s in (-2, -1)]
    second = math.log(1 + math.exp(-4 * 1) / math.exp(-3 * 1))
    assert loss.metrics["rank_loss"].nanmean().item() == pytest.approx(sum(best_two) / 2 + second)
    assert loss.value.item() == pytest.approx(sum(best_two) / 2 + second + 0.05 * (3 - 1) ** 2 * 2)


def test_a_second_copy_of_an_answer_in_its_rank_changes_nothing() -> None:
    once = pro(one_prompt([-2.0, -3.0, -4.0], [1, 1, 1], [3.0, 1.0, 0.0])).value
    twice = pro(one_prompt([-2.0, -2.0, -3.0, -4.0], [1, 1, 1, 1], [3.0, 3.0, 1.0, 0.0])).value
    torch.testing.assert_close(twice, once, rtol=1e-12, atol=0)


def test_padding_is_no_equal_of_a_response_that_scores_zero() -> None:
    ranked = one_prompt([-2.0, -3.0, 0.0], [1, 1, 1], [0.0, -1.0, 0.0])
    padded = dataclasses.replace(ranked, valid_BK=torch.tensor([[True, True, False]]))
    torch.testing.assert_close(pro(padded).value, pro(one_prompt([-2.0, -3.0], [1, 1], [0.0, -1.0])).value, rtol=0, atol=0)


def test_equals_cost_nothing_where_the_released_code_charges_log_n() -> None:
    assert pro(one_prompt([-2.0, -1.0, -5.0], [1, 1, 1], [1.0, 1.0, 1.0])).value.item() == 0


def test_a_vanishing_gap_teaches_a_vanishing_amount() -> None:
    gradients = []
    for gap in (1e-1, 1e-3, 1e-6):
        ranked = one_prompt([-2.0, -1.0], [1, 1], [gap, 0.0])
        ranked.policy_BK.requires_grad_()
        pro(ranked, sft_weight=0.0).value.backward()
        assert ranked.policy_BK.grad is not None
        gradients.append(ranked.policy_BK.grad.abs().max().item())
    # d/ds of log(1 + exp(g (s_2 - s_1))) is g * sigmoid(g (s_2 - s_1))
    assert gradients == pytest.approx([g / (1 + math.exp(-g)) for g in (1e-1, 1e-3, 1e-6)])
