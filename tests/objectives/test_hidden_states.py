import pytest
import torch

from aligndistill.objectives.hidden_states import hidden_distance

STUDENT = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 1.0]])
TEACHER = torch.tensor([[3.0, 0.0], [0.0, -1.0], [2.0, 2.0]])


def test_mse_is_divided_by_the_hidden_size() -> None:
    assert hidden_distance([STUDENT], [TEACHER], "mse").tolist() == [8.0, 4.5, 1.0]


def test_cosine_is_of_directions_alone() -> None:
    """3-4-5: the cosine is 0.6; opposite: -1; twice as long: 1."""
    assert hidden_distance([STUDENT], [TEACHER], "cosine").tolist() == pytest.approx([0.4, 2.0, 0.0], abs=1e-6)


def test_pairs_of_layers_are_averaged_and_may_have_other_widths() -> None:
    wide = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [2, 2, 2, 2]])
    found = hidden_distance([STUDENT, wide], [TEACHER, torch.zeros(3, 4)], "mse")
    assert found.tolist() == [(8 + 0.25) / 2, 4.5 / 2, (1 + 4) / 2]


@pytest.mark.parametrize("kind", ["mse", "cosine"])
def test_equal_states_cost_nothing_and_the_teacher_learns_nothing(kind: str) -> None:
    student, teacher = STUDENT.clone().requires_grad_(), STUDENT.clone().requires_grad_()
    values_S = hidden_distance([student], [teacher], kind)  # type: ignore[arg-type]
    assert values_S.tolist() == pytest.approx([0.0] * 3, abs=1e-6)
    values_S.sum().backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6
    assert teacher.grad is None


def test_half_precision_is_compared_in_float32() -> None:
    """In bfloat16, 1000^2 / 2 would be 499,712."""
    student = torch.tensor([[1000.0, 0.0]], dtype=torch.bfloat16)
    assert hidden_distance([student], [torch.zeros(1, 2, dtype=torch.bfloat16)], "mse").tolist() == [500_000.0]
