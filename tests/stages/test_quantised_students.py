"""A quantised start from its pointer to a student's answers, and what a reward model and a critic make of it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligndistill.config.models import Lora, Quantize, StudentModel
from aligndistill.config.objectives import Ppo
from aligndistill.config.offline_objectives import Dpo
from aligndistill.config.run import AnswerSampling
from aligndistill.config.students import RewardTraining, Student
from aligndistill.models.load import ModelPointer, load_language_model, read_pointer
from aligndistill.models.quantised import dequantised_weights
from aligndistill.models.scoring import score_groups
from aligndistill.records import Prompt
from aligndistill.stages import answers, models, reward_model, students
from aligndistill.stages.ppo_student import PpoSources, _critic
from aligndistill.store.jsonl import write_jsonl
from tests.stages.test_students import context_of
from tests.tiny_models import QUESTIONS, SIZES_FOR_BITS, pairs, random_groups, user, write_tiny_model

LORA = Lora(r=4)


def start_and_rankings(folder: Path, quantize: Quantize) -> dict[str, Any]:
    """The stage of a quantised start, and rankings."""
    base = write_tiny_model(folder / "base", **SIZES_FOR_BITS)
    models.point(context_of(folder, "start"), settings=StudentModel(model=str(base), dtype="float32", lora=LORA, quantize=quantize))
    (folder / "rankings").mkdir()
    write_jsonl(folder / "rankings" / "rankings.jsonl", pairs())
    return {"start": folder / "start", "rankings": folder / "rankings"}


@pytest.mark.parametrize("export", ["merged", "adapter"])
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_student_answers_by_its_result_and_its_kl_is_from_the_quantised_start(kind: Any, export: Any, tmp_path: Path) -> None:
    inputs = start_and_rankings(tmp_path, Quantize(kind=kind, export=export))
    settings = {"learning_rate": 1e-2, "batch_size": 8, "lr_scheduler_type": "constant", "warmup_ratio": 0}
    kl: dict[int, float] = {}
    for steps, rate in ((1, 1e-9), (6, 1e-2)):
        name = f"student-{steps}"
        student = Student(objective=Dpo(kind="dpo"), **{**settings, "learning_rate": rate}, max_steps=steps)
        learning = {"settings": student, "lora": LORA, "seed": 0, "models": {}, "reference": inputs["start"]}
        students.make(context_of(tmp_path, name, logging_steps=1), **learning, **inputs)
        log = [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert log[0] == pytest.approx(math.log(2), abs=1e-5)
        assert steps == 1 or log[-1] < log[0] - 0.1

        (tmp_path / f"prompts-{steps}").mkdir()
        rows = [Prompt(id=f"{n}", messages=user(text), split="held_out", source="x") for n, text in enumerate(QUESTIONS)]
        write_jsonl(tmp_path / f"prompts-{steps}" / "prompts.jsonl", rows)
        context = context_of(tmp_path, f"answers-{steps}")
        context = replace(context, identities={**context.identities, tmp_path / name: name})
        sampling = AnswerSampling(None, samples_per_prompt=1, temperature=1.0, max_new_tokens=8, max_prompt_tokens=40)
        given = {"author": tmp_path / name, "reference": inputs["start"], "prompts": tmp_path / f"prompts-{steps}"}
        answers.make(context, name=name, sampling=sampling, seed=0, **given)
        written = [json.loads(line) for line in (tmp_path / f"answers-{steps}" / "answers.jsonl").read_text().splitlines()]
        kl[steps] = sum(one["kl_nats"] for one in written) / len(written)
    assert kl[1] == pytest.approx(0, abs=1e-4), "an untrained student is the quantised start, whatever it is saved as"
    assert kl[6] > 0.1


@pytest.mark.parametrize("export", ["merged", "adapter"])
def test_the_result_is_a_hugging_face_folder(export: Any, tmp_path: Path) -> None:
    inputs = start_and_rankings(tmp_path, Quantize(kind="nf4", export=export))
    student = Student(objective=Dpo(kind="dpo"), batch_size=8, max_steps=1)
    learning = {"settings": student, "lora": LORA, "seed": 0, "models": {}, "reference": inputs["start"]}
    students.make(context_of(tmp_path, "student"), **learning, **inputs)
    folder = tmp_path / "student" / "model"
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert "quantization_config" not in vars(loaded.config)
    assert (tmp_path / "student" / "model-adapter").exists() == (export == "merged")
    pointer = read_pointer(tmp_path / "student")
    ours = load_language_model(pointer)
    assert (pointer.quantize is None) == (export == "merged")
    if export == "adapter":
        assert pointer.adapter == str(folder)
        assert {one.dtype for one in ours.model.parameters()} == {torch.float32, torch.uint8}
    assert all(
        math.isfinite(one.logprob_nats) for group in score_groups(ours, random_groups([(3, [2])]), 1) for one in group.responses
    )


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_reward_model_has_the_starts_whole_weights(lora: Lora | None, tmp_path: Path) -> None:
    inputs = start_and_rankings(tmp_path, Quantize(kind="nf4", export="adapter"))
    settings = RewardTraining(lora=lora, batch_size=8, max_steps=1, learning_rate=1e-9)
    reward_model.make(context_of(tmp_path, "reward_model"), settings=settings, seed=0, **inputs)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "reward_model" / "model").state_dict()
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "base").state_dict()
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(saved[name].float(), whole[name], atol=1e-5, rtol=0)


def test_a_separate_critic_has_the_starts_whole_weights(tmp_path: Path) -> None:
    inputs = start_and_rankings(tmp_path, Quantize(kind="nf4"))
    sources = PpoSources(inputs["start"], inputs["start"], tmp_path, {}, None, None)
    critic = _critic(sources, read_pointer(inputs["start"]), Ppo(kind="ppo", critic="separate"), LORA, 0)
    assert critic is not None
    assert {one.dtype for one in critic.model.parameters()} == {torch.float32}


def test_a_students_copy_has_rounded_weights_and_is_found_when_the_store_is_moved(tmp_path: Path) -> None:
    store = tmp_path / "store"
    base = write_tiny_model(store / "student-dpo" / "model", **SIZES_FOR_BITS)
    whole = ModelPointer(path="model", layout="chat", dtype="float32")
    whole.write(store / "student-dpo")
    models.quantised(context_of(store, "model-dpo@int8"), student=store / "student-dpo", kind="int8")
    store.rename(tmp_path / "moved")
    copy = load_language_model(read_pointer(tmp_path / "moved" / "model-dpo@int8"))
    own = AutoModelForCausalLM.from_pretrained(tmp_path / "moved" / base.relative_to(store), dtype=torch.float32)
    found = dequantised_weights(copy.model)
    assert found
    for name, weight_OI in found.items():
        whole_OI = own.get_submodule(name).weight.detach()
        step_O1 = whole_OI.abs().amax(1, keepdim=True) / 127
        assert ((weight_OI - whole_OI).abs() <= 0.57 * step_O1).all()  # half a step, and float16 before it
        steps_OI = weight_OI / step_O1
        torch.testing.assert_close(steps_OI, steps_OI.round(), rtol=0, atol=0.1)
