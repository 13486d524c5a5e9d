import pytest

from aligndistill.evaluation.fidelity import fidelity_of


def test_means_are_over_all_tokens_together_and_intervals_over_prompts() -> None:
    found = fidelity_of([(4, 3.0, 2.0, 1.0), (1, 0.0, 3.0, 0.5)])
    assert found.agreement.mean == pytest.approx(3 / 5)
    assert found.kl_forward.mean == pytest.approx(5 / 5)
    assert found.kl_reverse.mean == pytest.approx(1.5 / 5)
    assert (found.agreement.low, found.agreement.high) == (0.0, 0.75)  # only the one prompt, or only the other
    assert found.agreement.n == 2
