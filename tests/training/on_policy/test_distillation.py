"""On-policy distillation, update by update."""

from pathlib import Path

import pytest

from tests.training.on_policy.tiny_distillation import tiny_distillation


@pytest.mark.parametrize("form", ["full", "sampled"])
def test_slice(form: str, tmp_path: Path) -> None:
    ran = tiny_distillation(tmp_path, form=form, updates=3)
    for e in ran.trained.log:
        print(e)
    assert ran.trained.steps == 3
