"""Values by hand, gradients by finite differences, and what every divergence keeps."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from aligndistill.objectives import divergences
from aligndistill.objectives.divergences import Dense, Kind, TopK, divergence, gradient_scale

KINDS: tuple[Kind, ...] = get_args(Kind)
kinds = pytest.mark.parametrize("kind", KINDS)
temperatures = pytest.mark.parametrize("temperature", [1.0, 2.5])
S, V = 6, 11


def logits(seed: int, spread: float = 2.0, positions: int = S, vocabulary: int = V, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(positions, vocabulary, generator=generator, dtype=torch.float64) * spread).to(dtype)


def top_k(logits_SV: Tensor, k: int) -> TopK:
    """What a teacher that stores its k likeliest tokens would store."""
    logps_SV = logits_SV.log_softmax(-1)
    logps_Sk, ids_Sk = logps_SV.topk(k, -1)
    return TopK(ids_Sk, logps_Sk, logps_SV.scatter(-1, ids_Sk, -math.inf).logsumexp(-1))


def with_gradient(student_SV: Tensor, target: Dense | TopK, kind: Kind, **settings: float) -> tuple[Tensor, Tensor]:
    student_SV = student_SV.clone().requires_grad_()
    values_S = divergence(student_SV, target, kind, **settings)
    (gradient_SV,) = torch.autograd.grad(values_S.sum(), student_SV)
    return values_S.detach(), gradient_SV


def by_hand(student_V: list[float], teacher_V: list[float], kind: Kind, beta: float, skew: float) -> float:
    """Plain loops over the vocabulary."""

    def softmax(values: list[float]) -> list[float]:
        total = sum(math.exp(value) for value in values)
        return [math.exp(value) / total for value in values]

    def kl(one: list[float], other: list[float]) -> float:
        return sum(a * (math.log(a) - math.log(b)) for a, b in zip(one, other, strict=True))

    def mixed(share: float) -> list[float]:
        return [share * a + (1 - share) * b for a, b in zip(p, q, strict=True)]

    q, p = softmax(student_V), softmax(teacher_V)
    match kind:
        case "forward_kl":
            return kl(p, q)
        case "reverse_kl":
            return kl(q, p)
        case "jsd":
            return beta * kl(p, mixed(beta)) + (1 - beta) * kl(q, mixed(beta))
        case "skew_forward":
            return kl(p, mixed(skew))
        case "skew_reverse":
            return kl(q, mixed(1 - skew))
        case "tvd":
            return sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
        case "akl":
            mass, head = 0.0, 0.0
            total = sum(abs(a - b) for a, b in zip(p, q, strict=True))
            for number, (a, b) in enumerate(sorted(zip(p, q, strict=True), reverse=True)):
                mass += a
                if number == 0 or mass <= 0.5:
                    head += abs(a - b)
            return head / total * kl(p, q) + (1 - head / total) * kl(q, p)


@kinds
@temperatures
def test_values_are_those_of_the_definitions(kind: Kind, temperature: float) -> None:
    student_SV, teacher_SV = logits(0), logits(1)
    values_S = divergence(student_SV, Dense(teacher_SV), kind, beta=0.3, skew=0.2, temperature=temperature)
    for row in range(S):
        tempered = [(one[row] / temperature).tolist() for one in (student_SV, teacher_SV)]
        assert values_S[row].item() == pytest.approx(by_hand(*tempered, kind, 0.3, 0.2), rel=1e-10)


def test_the_head_of_akl_is_more_than_its_first_token_and_not_all() -> None:
    """So that the hand-made values above test it."""
    sizes = [(row.softmax(-1).sort(descending=True).values.cumsum(-1) <= 0.5).sum().item() for row in logits(1) / 2.5]
    assert any(1 < size < V for size in sizes)


@kinds
@temperatures
def test_gradients_are_those_of_finite_differences(kind: Kind, temperature: float) -> None:
    """AKL's weight is held fixed, as its authors do, so its gradient is that of two KLs."""
    student_SV, teacher_SV = logits(2).requires_grad_(), logits(3)
    settings = {"beta": 0.3, "skew": 0.2, "temperature": temperature}
    if kind != "akl":
        assert torch.autograd.gradcheck(lambda z: divergence(z, Dense(teacher_SV), kind, **settings), (student_SV,))
        return
    values_S, gradient_SV = with_gradient(student_SV.detach(), Dense(teacher_SV), "akl", **settings)
    (forward_S, forward_SV), (reverse_S, reverse_SV) = (
        with_gradient(student_SV.detach(), Dense(teacher_SV), one, **settings) for one in ("forward_kl", "reverse_kl")
    )
    weight_S = (values_S - reverse_S) / (forward_S - reverse_S)
    assert ((weight_S > 0) & (weight_S < 1)).all()
    weight_S1 = weight_S.unsqueeze(-1)
    torch.testing.assert_close(gradient_SV, weight_S1 * forward_SV + (1 - weight_S1) * reverse_SV, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", [one for one in KINDS if one != "akl"])
@pytest.mark.parametrize("k", [1, 4, V - 1])
def test_gradients_with_a_tail_are_those_of_finite_differences(kind: Kind, k: int) -> None:
    student_SV, target = logits(2).requires_grad_(), top_k(logits(3), k)
    assert torch.autograd.gradcheck(lambda z: divergence(z, target, kind, beta=0.3, skew=0.2), (student_SV,))


# ---------------------------------------------------------------------------------------------------------- properties


@kinds
@temperatures
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_student_that_is_its_teacher_has_value_and_gradient_0(kind: Kind, temperature: float, dtype: torch.dtype) -> None:
    same_SV = logits(4, dtype=dtype)
    values_S, gradient_SV = with_gradient(
        same_SV, Dense(same_SV + 3), kind, temperature=temperature
    )  # a constant changes no softmax
    bound = 1e-6 if dtype == torch.float32 else 1e-14
    assert values_S.abs().max() < (10 * bound if kind == "tvd" else bound)
    assert gradient_SV.abs().max() < (1 if kind == "tvd" else bound)  # the total variation has a corner there
    exact_S, exact_SV = with_gradient(same_SV, Dense(same_SV), kind, temperature=temperature)
    assert exact_S.abs().max() <= bound
    assert exact_SV.abs().max() <= bound


@kinds
@pytest.mark.parametrize("k", [1, 3])
def test_with_a_tail_too_a_student_that_is_its_teacher_has_value_and_gradient_0(kind: Kind, k: int) -> None:
    same_SV = logits(4)
    values_S, gradient_SV = with_gradient(same_SV, top_k(same_SV, k), kind)
    assert values_S.abs().max() < 1e-14
    assert gradient_SV.abs().max() < 1e-14


@kinds
@temperatures
def test_no_divergence_is_negative_and_all_gradients_sum_to_0(kind: Kind, temperature: float) -> None:
    for seed in range(5):
        values_S, gradient_SV = with_gradient(logits(seed), Dense(logits(seed + 50)), kind, temperature=temperature)
        assert (values_S > 0).all()
        assert gradient_SV.sum(-1).abs().max() < 1e-12
        assert gradient_SV.abs().max() > 1e-3


@pytest.mark.parametrize("kind", [one for one in KINDS if one != "akl"])
def test_a_tail_never_adds_to_the_divergence_and_more_tokens_never_take_away(kind: Kind) -> None:
    student_SV, teacher_SV = logits(5, positions=40), logits(6, positions=40)
    full_S = divergence(student_SV, Dense(teacher_SV), kind)
    coarser_S = torch.zeros_like(full_S)
    for k in (1, 2, 4, 8, V - 1):
        values_S = divergence(student_SV, top_k(teacher_SV, k), kind)
        assert (values_S >= coarser_S - 1e-14).all()
        assert (values_S <= full_S + 1e-14).all()
        coarser_S = values_S


@kinds
@pytest.mark.parametrize("k", [V - 1, V])
def test_all_tokens_known_are_the_whole_distribution(kind: Kind, k: int) -> None:
    """With all but one, the tail is one token; with all, it is empty. Of AKL's head the last is no part."""
    student_SV, teacher_SV = logits(7), logits(8)
    for found, expected in zip(
        with_gradient(student_SV, top_k(teacher_SV, k), kind), with_gradient(student_SV, Dense(teacher_SV), kind), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@kinds
@temperatures
def test_the_order_of_the_vocabulary_does_not_matter(kind: Kind, temperature: float) -> None:
    student_SV, teacher_SV = logits(9), logits(10)
    order_V = torch.randperm(V, generator=torch.Generator().manual_seed(0))
    values_S, gradient_SV = with_gradient(student_SV, Dense(teacher_SV), kind, temperature=temperature)
    other_S, other_SV = with_gradient(student_SV[:, order_V], Dense(teacher_SV[:, order_V]), kind, temperature=temperature)
    torch.testing.assert_close(other_S, values_S, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(other_SV, gradient_SV[:, order_V], rtol=1e-10, atol=1e-14)
    target = top_k(teacher_SV, 4)
    place_V = order_V.argsort()
    moved = TopK(place_V[target.ids_Sk].flip(-1), target.logps_Sk.flip(-1), target.log_tail_S)
    torch.testing.assert_close(
        divergence(student_SV[:, order_V], moved, kind), divergence(student_SV, target, kind), rtol=1e-12, atol=1e-14
    )


@kinds
@pytest.mark.parametrize("elements", [1, 2 * V, 4 * V + 1])
def test_blocks_change_nothing(kind: Kind, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    student_SV = logits(25)
    for target in (Dense(logits(26)), top_k(logits(26), 3)):
        whole = with_gradient(student_SV, target, kind)
        with monkeypatch.context() as patch:
            patch.setattr(divergences, "BLOCK_ELEMENTS", elements)
            for found, expected in zip(with_gradient(student_SV, target, kind), whole, strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-16)


def test_no_positions_have_no_values() -> None:
    values_S, gradient_SV = with_gradient(logits(0)[:0], Dense(logits(1)[:0]), "jsd")
    assert (values_S.shape, gradient_SV.shape) == ((0,), (0, V))


@kinds
def test_positions_do_not_see_each_other(kind: Kind) -> None:
    student_SV, teacher_SV = logits(11), logits(12)
    values_S, gradient_SV = with_gradient(student_SV, Dense(teacher_SV), kind)
    parts = [with_gradient(one, Dense(other), kind) for one, other in zip(student_SV.split(2), teacher_SV.split(2), strict=True)]
    torch.testing.assert_close(torch.cat([values for values, _ in parts]), values_S, rtol=1e-14, atol=0)
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), gradient_SV, rtol=1e-14, atol=1e-16)


@kinds
def test_ids_that_neither_may_say_are_as_if_they_were_not_there(kind: Kind) -> None:
    student_SV, teacher_SV = logits(13), logits(14)
    values_S, gradient_SV = with_gradient(student_SV[:, :-2], Dense(teacher_SV[:, :-2]), kind)
    masked = [one.index_fill(-1, torch.tensor([V - 2, V - 1]), -math.inf) for one in (student_SV, teacher_SV)]
    found_S, found_SV = with_gradient(masked[0], Dense(masked[1]), kind)
    torch.testing.assert_close(found_S, values_S, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found_SV[:, :-2], gradient_SV, rtol=1e-12, atol=1e-14)
    assert (found_SV[:, -2:] == 0).all()


@pytest.mark.parametrize("kind", [one for one in KINDS if one not in ("reverse_kl", "akl")])
def test_a_teacher_may_rule_tokens_out(kind: Kind) -> None:
    """Only what divides by the teacher's probability is infinite there, and says so."""
    teacher_SV = logits(14).index_fill(-1, torch.tensor([0]), -math.inf)
    values_S, gradient_SV = with_gradient(logits(13), Dense(teacher_SV), kind)
    assert values_S.isfinite().all()
    assert gradient_SV.isfinite().all()
    assert divergence(logits(13), Dense(teacher_SV), "reverse_kl").isinf().all()


@kinds
def test_logits_that_are_no_numbers_are_not_hidden(kind: Kind) -> None:
    broken_SV = logits(13).index_fill(-1, torch.tensor([0]), math.nan)
    assert not divergence(broken_SV, Dense(logits(14)), kind).isfinite().any()
    assert not divergence(logits(14), Dense(broken_SV), kind).isfinite().any()


@kinds
@temperatures
def test_half_precision_is_cast_before_anything_is_computed(kind: Kind, temperature: float) -> None:
    """A log-softmax in bfloat16 has two or three digits; these rows have the vocabulary of Qwen2.5."""
    student_SV, teacher_SV = (logits(seed, 3.0, 2, 151_936, torch.bfloat16) for seed in (15, 16))
    found_S, found_SV = with_gradient(student_SV, Dense(teacher_SV), kind, temperature=temperature)
    expected_S, expected_SV = with_gradient(student_SV.double(), Dense(teacher_SV.double()), kind, temperature=temperature)
    assert found_S.dtype == torch.float32
    assert found_SV.dtype == torch.bfloat16  # autograd casts the float32 gradient back to the logits' type, and rounds it then
    torch.testing.assert_close(found_S.double(), expected_S, rtol=1e-4, atol=1e-6)
    # Where the terms of a gradient cancel, what is left has the error of the terms, which are no larger than the largest gradient.
    largest = float(expected_SV.abs().max())
    torch.testing.assert_close(found_SV.double(), expected_SV, rtol=1e-2, atol=1e-5 * largest + 1e-7)


@kinds
@pytest.mark.parametrize("spread", [50.0, 1e4])
def test_distributions_far_apart_stay_finite(kind: Kind, spread: float) -> None:
    values_S, gradient_SV = with_gradient(logits(17, spread, dtype=torch.float32), Dense(logits(18, spread)), kind)
    assert values_S.isfinite().all()
    assert gradient_SV.isfinite().all()
    found = with_gradient(logits(17, spread, dtype=torch.float32), top_k(logits(18, spread).float(), 2), kind)
    assert found[1].isfinite().all() or kind in ("reverse_kl", "akl")


def test_a_tail_that_is_almost_empty_has_a_bounded_gradient() -> None:
    """1 - sum of the known probabilities would be rounding alone, and its logarithm's gradient up to 1e7."""
    teacher_SV = torch.tensor([[20.0, 19.0, 0.0, -1.0, -2.0]])
    student_SV = torch.tensor([[19.0, 20.0, -1.0, 0.5, -2.0]])
    for kind in KINDS:
        found = with_gradient(student_SV, top_k(teacher_SV, 2), kind)
        expected = with_gradient(student_SV.double(), top_k(teacher_SV.double(), 2), kind)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-6)


@kinds
def test_the_gradient_keeps_its_size_at_any_temperature(kind: Kind) -> None:
    """Without the scale it would fall 64-fold (the total variation: 8-fold) from T = 8 to T = 64."""
    student_SV, teacher_SV = logits(19, positions=50), logits(20, positions=50)
    sizes = []
    for temperature in (8.0, 64.0):
        _, gradient_SV = with_gradient(student_SV, Dense(teacher_SV), kind, temperature=temperature)
        sizes.append(float(gradient_SV.norm()) * gradient_scale(kind, temperature))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.25)
    assert gradient_scale(kind, 1.0) == 1.0


def test_the_scale_of_jsd_shrinks_with_beta_and_its_ends_are_the_two_kls() -> None:
    student_SV, teacher_SV = logits(21), logits(22)
    for beta, end, factor in ((1e-6, "forward_kl", 1e-6), (1 - 1e-6, "reverse_kl", 1e-6)):
        values_S, gradient_SV = with_gradient(student_SV, Dense(teacher_SV), "jsd", beta=beta)
        expected_S, expected_SV = with_gradient(student_SV, Dense(teacher_SV), end)  # type: ignore[arg-type]
        torch.testing.assert_close(values_S / factor, expected_S, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(gradient_SV / factor, expected_SV, rtol=1e-3, atol=1e-3)


def test_a_tail_has_no_other_temperature() -> None:
    with pytest.raises(ValueError, match="no distribution at another temperature"):
        divergence(logits(0), top_k(logits(1), 3), "forward_kl", temperature=2.0)


@kinds
def test_inputs_are_left_as_they_were_and_the_teacher_gets_no_gradient(kind: Kind) -> None:
    student_SV, teacher_SV = logits(23).requires_grad_(), logits(24).requires_grad_()
    divergence(student_SV, Dense(teacher_SV), kind, temperature=2.0).sum().backward()
    assert teacher_SV.grad is None
    assert torch.equal(student_SV, logits(23))
    assert torch.equal(teacher_SV, logits(24))
