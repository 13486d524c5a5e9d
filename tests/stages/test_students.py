import json
import math
from pathlib import Path

import pytest

from aligndistill.config.objectives import Dpo
from aligndistill.config.run import Runtime
from aligndistill.config.students import Student
from aligndistill.models.load import ModelPointer
from aligndistill.stages import students
from aligndistill.stages.context import Work
from aligndistill.store.jsonl import write_jsonl
from aligndistill.training import arguments
from tests.tiny_models import pairs, write_tiny_model


def first_loss(folder: Path) -> float:
    """Of DPO with a large beta, which makes every difference between policy and reference show."""
    write_tiny_model(folder / "start" / "model")
    ModelPointer(path="model", layout="chat").write(folder / "start")
    (folder / "rankings").mkdir()
    write_jsonl(folder / "rankings" / "rankings.jsonl", pairs())
    (folder / "student").mkdir()
    inputs = {"start": folder / "start", "rankings": folder / "rankings"}
    work = Work(folder / "student", inputs, {name: name for name in inputs}, folder / "caches", Runtime(logging_steps=1), 0)
    dpo = Student(objective=Dpo(kind="dpo", beta=5.0), learning_rate=1e-5, batch_size=8, max_steps=1)
    students.make_student(work, "dpo", dpo, None)
    loss: float = json.loads((folder / "student" / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    return loss


@pytest.mark.parametrize("bf16", [False, True])
def test_the_reference_is_rounded_as_the_policy_is(bf16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first step the policy is the reference, so the loss is log 2."""
    for module in (arguments, students):
        monkeypatch.setattr(module, "trains_in_bf16", lambda: bf16)
    assert first_loss(tmp_path) == pytest.approx(math.log(2), abs=1e-6)
