"""KTO's baseline: which pairs it is measured on, and that it is a mean over the whole step. The weights of both kinds of
answers.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from aligndistill.config.offline_objectives import Kto
from aligndistill.errors import DataError
from aligndistill.models.groups import TokenGroup
from aligndistill.training.offline.examples import Example, Mismatched
from aligndistill.training.offline.mismatched import (
    MismatchedPairs,
    in_whole_steps,
    mismatched_groups,
    summed_log_ratios,
    with_weights,
)
from aligndistill.training.offline.policy import train_policy
from tests.tiny_models import pairs, ragged_rankings, ranking_examples, tiny_job, tiny_language_model, tiny_model


def groups_of(*prompts: int, responses: int = 2) -> list[TokenGroup]:
    """Prompts of one token; response k to the n-th of them is [100 n + k]."""
    return [TokenGroup([prompt], [[100 * n + k] for k in range(responses)]) for n, prompt in enumerate(prompts)]


# ------------------------------------------------------------------------------------------------------------- the pairs


@pytest.mark.parametrize("count", [4, 5, 7])
def test_pairs_rotate_over_prompts_also_where_their_number_is_odd(count: int) -> None:
    groups = groups_of(*range(count))
    found = mismatched_groups(groups, None)
    assert found.others == [*range(1, count), 0]
    assert [one.prompt for one in found] == [group.prompt for group in groups]
    for group, one in zip(groups, found, strict=True):
        assert len(one.responses) == 1
        assert one.responses[0] not in group.responses


def test_responses_of_every_rank_take_turns() -> None:
    found = mismatched_groups(groups_of(0, 1, 2, 3, 4, responses=3), None)
    assert [one.responses[0][0] % 100 for one in found] == [0, 1, 2, 0, 1]


def test_a_prompt_that_occurs_again_is_not_its_own_mismatch() -> None:
    groups = groups_of(7, 7, 8, 8, 8, 7)
    found = mismatched_groups(groups, None)
    assert found.others == [2, 2, 5, 5, 5, 2]
    assert all(groups[other].prompt != group.prompt for group, other in zip(groups, found.others, strict=True))


@pytest.mark.parametrize(("prompts", "line"), [((1, 2, 3), "only 3 training rankings with 3"), ((5,) * 6, "only 6 .* with 1 ")])
def test_too_few_prompts_are_refused(prompts: tuple[int, ...], line: str) -> None:
    with pytest.raises(DataError, match=line):
        mismatched_groups(groups_of(*prompts), None)


def test_a_response_is_cut_where_the_models_positions_end() -> None:
    groups = [TokenGroup(list(range(n, n + length)), [[9] * 6]) for n, length in ((0, 7), (10, 2), (20, 3), (30, 4))]
    assert [len(one.responses[0]) for one in mismatched_groups(groups, 8)] == [1, 6, 5, 4]
    assert [len(one.responses[0]) for one in mismatched_groups(groups, None)] == [6, 6, 6, 6]


def test_a_pair_has_the_references_log_prob_of_its_one_response() -> None:
    found = mismatched_groups(groups_of(0, 1, 2, 3), None)
    made = MismatchedPairs(found, [[-1.0], [-2.0], [-3.0], [-4.0]])
    assert list(made) == [Mismatched(group, value) for group, value in zip(found, (-1.0, -2.0, -3.0, -4.0), strict=True)]


@pytest.mark.parametrize(("count", "batch_size", "kept"), [(16, 8, 16), (19, 8, 16), (20, 8, 20), (5, 8, 5), (9, 4, 8)])
def test_no_step_has_fewer_prompts_than_a_baseline_needs(count: int, batch_size: int, kept: int) -> None:
    assert in_whole_steps(count, batch_size) == kept


# ---------------------------------------------------------------------------------------------------------- the baseline


def kto_examples(rankings: Any = None) -> list[Example]:
    reference = tiny_language_model()
    return ranking_examples(reference.conversation, rankings or ragged_rankings(), reference, mismatched=True)


def log_ratio(model: Any, pair: Mismatched) -> float:
    """By the model's own forward pass over prompt and response."""
    ids = torch.tensor([pair.group.prompt + pair.group.responses[0]])
    with torch.no_grad():
        logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    first = len(pair.group.prompt)
    return float(sum(logps[place - 1, ids[0, place]] for place in range(first, ids.shape[1]))) - pair.reference


def test_the_baseline_is_the_mean_log_ratio_of_all_prompts_of_the_step(tmp_path: Path) -> None:
    examples = kto_examples()
    policy = tiny_language_model(seed=1)  # not the reference
    found = [log_ratio(policy.model, one.mismatched) for one in examples if one.mismatched is not None]
    assert len(found) == len(examples) == 8
    expected = sum(found) / len(found)
    assert abs(expected) > 0.1
    for per_device in (1, 3, 8):
        job = tiny_job(tmp_path / str(per_device), max_steps=1, runtime={"per_device_train_batch_size": per_device})
        trained = train_policy(tiny_language_model(seed=1), Kto(kind="kto"), None, examples, job)
        assert trained.log[0]["baseline_nats"] == pytest.approx(expected, abs=1e-3)


def test_parts_of_the_sum_and_the_gradient_do_not_depend_on_the_split() -> None:
    model = tiny_model(seed=1)
    policy = tiny_language_model(seed=1)
    found = [one.mismatched for one in kto_examples() if one.mismatched is not None]
    whole = summed_log_ratios(policy.model, found, 8, 1, policy.conversation.pad_id, policy.device)
    assert whole[1] == 8
    assert not whole.requires_grad
    assert float(whole[0]) == pytest.approx(sum(log_ratio(model, one) for one in found), abs=1e-3)
    for parts in (2, 5, 8):
        split = summed_log_ratios(policy.model, found, 8, parts, policy.conversation.pad_id, policy.device)
        torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-4)
    some = summed_log_ratios(policy.model, found, 3, 8, policy.conversation.pad_id, policy.device)
    assert some[1] == 3
    assert float(some[0]) == pytest.approx(sum(log_ratio(model, one) for one in found[:3]), abs=1e-3)


def test_it_starts_at_zero_is_logged_uncut_and_every_step_has_both_kinds(tmp_path: Path) -> None:
    examples = kto_examples(pairs())
    job = tiny_job(tmp_path, batch_size=4, max_steps=8, learning_rate=1e-2)
    trained = train_policy(tiny_language_model(), Kto(kind="kto"), None, examples, job)
    assert trained.log[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert trained.log[0]["baseline_nats"] == pytest.approx(0, abs=1e-4)
    assert trained.log[-1]["loss"] < 0.49
    assert min(entry["baseline_nats"] for entry in trained.log) < 0  # cut at 0 in the loss alone
    for entry in trained.log:  # a prompt's answers stay together, so no step has one label alone
        assert {"rewards/chosen", "rewards/rejected"} <= entry.keys()


# ------------------------------------------------------------------------------------------------------------ the weights


def scored(*rows: list[float]) -> list[Example]:
    return [Example(TokenGroup([n], [[k] for k in range(len(row))]), row) for n, row in enumerate(rows)]


def weights(examples: list[Example], **settings: Any) -> tuple[float, float]:
    found = with_weights(Kto.model_validate({"kind": "kto", **settings}), examples)
    assert isinstance(found.desirable_weight, float)
    assert isinstance(found.undesirable_weight, float)
    return found.desirable_weight, found.undesirable_weight


def test_automatic_weights_make_both_kinds_weigh_the_same() -> None:
    rows = scored([1.0, 0.0, 0.0, 0.0], [2.0, 1.0])  # shares of 1/4 and 3/4, 1/2 and 1/2
    good, bad = 0.75, 1.25
    assert weights(rows) == pytest.approx((1 / good, 1 / bad))
    assert weights(rows, desirable_weight=2.0) == pytest.approx((2.0, 2 * good / bad))
    assert weights(rows, undesirable_weight=3.0) == pytest.approx((3 * bad / good, 3.0))
    assert weights(rows, desirable_weight=1.0, undesirable_weight=1.0) == (1.0, 1.0)
    assert weights(scored([1.0, 0.0], [5.0, 2.0])) == (1.0, 1.0)


def test_soft_labels_count_by_their_probability() -> None:
    assert weights(scored([4.0, 0.0]), labels="soft") == pytest.approx((1.0, 1.0))
    top, rest = 1 / (1 + math.exp(-3.0)), 1 / (1 + math.exp(1.0))
    good = (top + 3 * rest) / 4
    assert weights(scored([4.0, 0.0, 0.0, 0.0]), labels="soft") == pytest.approx((0.5 / good, 0.5 / (1 - good)))


def test_a_kind_that_does_not_occur_is_an_error_with_what_to_do() -> None:
    rows = scored([4.0, 0.0, 0.0, 0.0])  # 3 above the mean, and 1 below
    with pytest.raises(DataError, match=r"kto found no undesirable answer in 1 training rankings\. .*the margin \(2\): lower it"):
        weights(rows, split="margin", margin=2.0)
    assert weights(rows, split="margin", margin=2.0, desirable_weight=1.0, undesirable_weight=1.0) == (1.0, 1.0)
    with pytest.raises(DataError, match="kto found no desirable answer"):
        weights(rows, split="margin", margin=9.0, desirable_weight=1.0, undesirable_weight=1.0)
