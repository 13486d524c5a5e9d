import pytest
import torch

from aligndistill.objectives.inputs import Ranked
from aligndistill.objectives.rrhf import rrhf


def one_prompt(policy: list[float], lengths: list[int], scores: list[float]) -> Ranked:
    return Ranked(
        policy_BK=torch.tensor([policy], dtype=torch.float64),
        reference_BK=None,
        scores_BK=torch.tensor([scores], dtype=torch.float64),
        lengths_BK=torch.tensor([lengths]),
        valid_BK=torch.ones(1, len(policy), dtype=torch.bool),
    )


def test_equations_1_to_5_by_hand() -> None:
    # p = -10/5 = -2, -6/2 = -3, -4/4 = -1
    loss = rrhf(one_prompt([-10.0, -6.0, -4.0], [5, 2, 4], [3.0, 2.0, 1.0]))
    rank_loss = max(0, -3 + 2) + max(0, -1 + 2) + max(0, -1 + 3)  # a sum, of three pairs
    assert rank_loss == 3
    assert loss.value.item() == pytest.approx(rank_loss + 10)
    assert loss.metrics["rank_loss"].nanmean().item() == pytest.approx(3)
    assert loss.metrics["sft_loss"].nanmean().item() == pytest.approx(10)
    assert loss.metrics["accuracy"].nanmean().item() == pytest.approx(1 / 3)


def test_the_ranking_is_by_the_mean_over_a_responses_own_tokens() -> None:
    # The released code divides both by the padded length 8 and would see -16/8 < -6/8: out of order by 1.25.
    loss = rrhf(one_prompt([-16.0, -6.0], [8, 2], [1.0, 0.0]), sft_weight=0.0)
    assert loss.value.item() == 0


def test_the_sft_weight_weighs_the_sum_over_the_best_responses_tokens() -> None:
    assert rrhf(one_prompt([-10.0, -30.0], [5, 2], [1.0, 0.0]), sft_weight=0.25).value.item() == pytest.approx(0.25 * 10)


def test_ties_make_no_pair_and_of_several_best_the_first_is_imitated() -> None:
    loss = rrhf(one_prompt([-10.0, -5.0, -1.0], [5, 5, 5], [2.0, 2.0, 1.0]))
    assert loss.value.item() == pytest.approx((-1 / 5 + 10 / 5) + (-1 / 5 + 5 / 5) + 10)


def test_one_answer_is_only_imitated() -> None:
    assert rrhf(one_prompt([-10.0], [5], [2.0])).value.item() == pytest.approx(10)


def test_a_naive_loop_agrees() -> None:
    generator = torch.Generator().manual_seed(3)
    prompts, answers = 8, 6
    ranked = Ranked(
        policy_BK=-torch.rand(prompts, answers, generator=generator, dtype=torch.float64) * 40,
        reference_BK=None,
        scores_BK=torch.randint(0, 4, (prompts, answers), generator=generator).double(),
        lengths_BK=torch.randint(1, 20, (prompts, answers), generator=generator),
        valid_BK=torch.rand(prompts, answers, generator=generator) < 0.8,
    )
    total = 0.0
    for b in range(prompts):
        real = [k for k in range(answers) if ranked.valid_BK[b, k]]
        p = {k: float(ranked.policy_BK[b, k]) / int(ranked.lengths_BK[b, k]) for k in real}
        r = {k: float(ranked.scores_BK[b, k]) for k in real}
        for i in real:
            for j in real:
                if r[i] < r[j]:
                    total += max(0.0, p[i] - p[j])
        total -= float(ranked.policy_BK[b, max(real, key=lambda k: r[k])])  # max gives the first of equals
    assert rrhf(ranked).value.item() == pytest.approx(total / prompts, rel=1e-12)
