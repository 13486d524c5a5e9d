"""The stage of a student that is distilled on its own answers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from aligndistill.config.models import Lora
from aligndistill.config.objectives import OnPolicyDistil
from aligndistill.config.run import Runtime
from aligndistill.config.students import Student
from aligndistill.errors import ConfigError, DataError
from aligndistill.models import load
from aligndistill.models.from_scratch import train_tokenizer
from aligndistill.models.load import ModelPointer, load_language_model, read_pointer
from aligndistill.records import Prompt
from aligndistill.stages import students
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import PROMPTS, SAMPLES, RolloutSample
from aligndistill.store.jsonl import read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult
from tests.tiny_models import QUESTIONS, TEXTS, tiny_model, user, write_tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A start, a teacher, and eight prompts, of which one is held out."""
    for seed, name in enumerate(("start", "teacher")):
        write_tiny_model(tmp_path / name / "model", "llama" if name == "start" else "qwen3", seed)
        ModelPointer(path="model", layout="chat").write(tmp_path / name)
    (tmp_path / "prompts").mkdir()
    prompts = [
        Prompt(id=str(n), messages=user(text), split="held_out" if n == 0 else "train", source=f"p.jsonl:{n + 1}")
        for n, text in enumerate(QUESTIONS)
    ]
    write_jsonl(tmp_path / "prompts" / PROMPTS, prompts)
    return tmp_path


def make(folder: Path, name: str = "student-opd", lora: Lora | None = None, **objective: Any) -> StageResult:
    settings = Student(
        objective=OnPolicyDistil(kind="on_policy_distil", **objective),
        batch_size=4,
        max_steps=4,
        max_response_tokens=8,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
    )
    inputs = {one: folder / one for one in ("start", "prompts", "teacher")}
    (folder / name).mkdir(exist_ok=True)
    identities = {path: one for one, path in inputs.items()}
    context = StageContext(name, folder / name, folder / "caches", Runtime(), identities)
    return students.make(context, settings=settings, lora=lora, seed=0, models={}, **inputs)


@pytest.mark.parametrize("lora", [None, Lora(r=4)], ids=["all", "lora"])
def test_a_student_is_a_model_folder_with_the_log_and_samples_of_every_update(folder: Path, lora: Lora | None) -> None:
    made = make(folder, lora=lora, samples_per_prompt=2)
    assert made.counts == {"prompts": 7, "updates": 4, "steps": 4}
    log = [json.loads(line) for line in (folder / "student-opd" / "metrics.jsonl").read_text().splitlines()]
    assert [entry["update"] for entry in log] == [1, 2, 3, 4]
    samples = list(read_jsonl(folder / "student-opd" / SAMPLES, RolloutSample))
    assert [one.update for one in samples] == [1] * 4 + [2] * 3 + [3] * 4 + [4] * 3  # seven prompts are steps of four and three
    assert not {one.prompt_id for one in samples} & {"0"}
    assert {(one.score, one.kl_nats) for one in samples} == {(None, None)}
    saved = AutoModelForCausalLM.from_pretrained(folder / "student-opd" / "model")
    start = tiny_model()
    assert max((one - other).abs().max() for one, other in zip(saved.parameters(), start.parameters(), strict=True)) > 1e-4
    load_language_model(read_pointer(folder / "student-opd"))


def test_another_tokenizer_is_found_before_a_model_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_tokenizer(("zebras and quaggas", "quaggas and zebras") * 3, 320, 64).save_pretrained(folder / "teacher" / "model")
    monkeypatch.setattr(load, "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match=r"another tokenizer than the student: id \d+ is '.+' in '.*/teacher/model' and '.+' in"):
        make(folder)


def test_end_tokens_that_disagree_are_found_before_the_first_answer(folder: Path) -> None:
    """A teacher without turns, whose tokenizer ends texts with another token."""
    tokenizer = train_tokenizer(TEXTS, 320, 64)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(9)
    tokenizer.save_pretrained(folder / "teacher" / "model")
    ModelPointer(path="model", layout="plain").write(folder / "teacher")
    with pytest.raises(ConfigError, match=r"the teacher ends its answers with .*, at which the student does not stop"):
        make(folder)
    assert not (folder / "student-opd" / "model").exists()


def test_prompts_that_no_position_of_the_teacher_is_left_for_are_dropped(folder: Path) -> None:
    shutil.rmtree(folder / "teacher" / "model")
    write_tiny_model(folder / "teacher" / "model", "llama", 1, max_position_embeddings=10)
    with pytest.raises(DataError, match=r"no training prompts are left. Dropped: 7 prompt too long"):
        make(folder)


def test_a_finished_student_agrees_with_its_teacher_more(folder: Path) -> None:
    make(folder, form="full")
    log = [json.loads(line) for line in (folder / "student-opd" / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["kl_reverse_nats"] < log[0]["kl_reverse_nats"]
    assert torch.isfinite(torch.tensor([entry["loss"] for entry in log])).all()
