"""The stage of a student that is distilled on its own answers."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from aligndistill.config.models import EndpointModel, Lora
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
from tests.training.on_policy.teacher_server import TeacherServer


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


def make(
    folder: Path, name: str = "student-opd", lora: Lora | None = None, server: EndpointModel | None = None, **objective: Any
) -> StageResult:
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
    given: dict[str, Any] = {**inputs, "teacher": server or inputs["teacher"]}
    return students.make(context, settings=settings, lora=lora, seed=0, models={}, **given)


@pytest.fixture
def server(folder: Path) -> Iterator[TeacherServer]:
    """The teacher, served; in its folder here there is only its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder / "teacher" / "model", dtype="float32").eval()
    (folder / "teacher" / "model" / "model.safetensors").unlink()
    with TeacherServer(model) as running:
        yield running


def at(server: TeacherServer, folder: Path, **settings: Any) -> EndpointModel:
    return server.config(tokenizer=str(folder / "teacher" / "model"), **settings)


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


# ----------------------------------------------------------------------------------------------- a teacher behind a server


def test_of_a_served_teacher_only_the_tokenizer_is_here(folder: Path, server: TeacherServer) -> None:
    made = make(folder, server=at(server, folder), form="sampled")
    assert made.counts == {"prompts": 7, "updates": 4, "steps": 4}
    assert len(server.asked) == 1 + 4 + 3 + 4 + 3  # the first one before anything is loaded
    log = [json.loads(line) for line in (folder / "student-opd" / "metrics.jsonl").read_text().splitlines()]
    assert all(entry["teacher_seconds"] > 0 for entry in log)


def test_another_tokenizer_or_end_is_found_before_a_server_is_asked_or_a_model_loaded(
    folder: Path, server: TeacherServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tokenizer(("zebras and quaggas", "quaggas and zebras") * 3, 320, 64).save_pretrained(folder / "teacher" / "model")
    monkeypatch.setattr(load, "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match=r"another tokenizer than the student: id \d+ is '.+' in '.*/teacher/model' and '.+' in"):
        make(folder, server=at(server, folder), form="sampled")
    assert not server.bodies


def test_end_tokens_of_a_served_teacher_that_disagree(folder: Path, server: TeacherServer) -> None:
    (folder / "teacher" / "model" / "generation_config.json").write_text("{}")
    (folder / "teacher" / "model" / "config.json").unlink()
    tokenizer = train_tokenizer(TEXTS, 320, 64)
    tokenizer.chat_template = tokenizer.chat_template.replace(tokenizer.eos_token, tokenizer.convert_ids_to_tokens(9))
    tokenizer.add_special_tokens({"eos_token": tokenizer.convert_ids_to_tokens(9)})
    tokenizer.save_pretrained(folder / "teacher" / "model")
    with pytest.raises(ConfigError, match=r"ends its answers with .*, at which the .* does not stop"):
        make(folder, server=at(server, folder), form="sampled")


def test_prompts_that_the_servers_context_is_too_short_for_are_dropped(folder: Path, server: TeacherServer) -> None:
    """A token is sampled behind each answer."""
    longest = max(len(ids) for ids in prompts_as_ids(folder))
    fits = make(folder, "student-fits", server=at(server, folder, context_tokens=longest + 8 + 1), form="sampled")
    assert fits.dropped == {}
    short = make(folder, "student-short", server=at(server, folder, context_tokens=longest + 8), form="sampled")
    assert short.dropped["prompt too long"] >= 1


def prompts_as_ids(folder: Path) -> list[list[int]]:
    conversation = load_language_model(read_pointer(folder / "start")).conversation
    prompts = (one for one in read_jsonl(folder / "prompts" / PROMPTS, Prompt) if one.split == "train")
    return [conversation.prompt_ids(one.messages) for one in prompts]
