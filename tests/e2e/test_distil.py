"""A student that is distilled, from prompts to report, beside one that imitates the same answers."""

import json
import os
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from aligndistill.models.load import LanguageModel, load_language_model, read_pointer
from aligndistill.models.scoring import kl_nats
from aligndistill.models.tokenise import Limits, PromptWithResponses, tokenise
from aligndistill.records import Answer, Prompt
from aligndistill.store.jsonl import read_jsonl
from tests.e2e.command import REPOSITORY, ForkServer, ranks
from tests.e2e.small_run import SIZES, write_config

PORT = 29700 + os.getpid() % 90

STUDENTS = ("kd", "kd_16", "sft")


def only(folder: Path, stage: str) -> Path:
    (found,) = (folder / "runs/store").glob(f"{stage}-*")
    return found


def distilled(config: dict[str, Any], max_steps: int) -> dict[str, Any]:
    """The small run with students that are distilled, from a teacher whose tokenizer is the start's."""
    training = {"batch_size": 16, "max_steps": max_steps, "learning_rate": 1e-2, "lr_scheduler_type": "constant"}
    fine_tuned = {"learning_rate": 1e-2, "batch_size": 16}
    shown = {who: {"path": f"{who}_demonstrations.jsonl"} for who in ("student", "teacher")}
    sizes = {**SIZES, "tokenizer_data": shown["teacher"]}
    objective = {"kind": "distil", "sft_weight": 0.0}
    return {
        **config,
        "start": {"from_scratch": sizes},
        "sft": {**fine_tuned, "demonstrations": shown["student"], "max_steps": 6},
        "teacher": {
            "from_scratch": {**sizes, "hidden_size": 48},
            "sft": {**fine_tuned, "demonstrations": shown["teacher"], "max_steps": 60},
        },
        "candidates": {"per_prompt": 2, "from": ["teacher", "start"], "max_new_tokens": 12},
        "reward_model": None,
        "evaluation": {"truth": "examples.quickstart.truth:truth", "fidelity": True, "quantized": "int8"},
        "students": {
            "kd": {"objective": objective, **training},
            "kd_16": {"objective": {**objective, "top_k": 16}, **training},
            "sft": {"objective": {"kind": "distil", "sft_weight": 1.0}, **training},
        },
    }


def test_distributions_teach_more_of_the_teacher_than_its_answers(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    config = distilled(config, max_steps=40)
    write_config(folder / "run.yaml", config)
    planned = forked.run(folder, "plan", "run.yaml")
    assert planned.code == 0, planned.errors
    assert "student-kd_16" in planned.output
    ended = forked.run(folder, "run", "run.yaml")
    assert ended.code == 0, ended.errors[-6000:]
    report = json.loads((folder / f"runs/{config['name']}/report.json").read_text())
    assert {*STUDENTS} <= report["students"].keys()

    steps = {(only(folder, f"student-{name}") / "metrics.jsonl").read_text().count("\n") for name in STUDENTS}
    assert len(steps) == 1
    teacher = load_language_model(read_pointer(only(folder, "teacher")))
    groups = held_out(folder, teacher)
    students = {name: load_language_model(read_pointer(only(folder, f"student-{name}"))) for name in STUDENTS}
    kl = {name: fmean(nats for row in kl_nats(teacher, student, groups, 32) for nats in row) for name, student in students.items()}
    assert kl["kd"] < 0.6 * kl["sft"], kl
    assert kl["kd_16"] < 0.8 * kl["sft"], kl

    # The report has the same in nats per token, and what the students say of their own answers.
    tokens = fmean(len(response) for group in groups for response in group.responses)
    followed = {name: report["students"][name]["fidelity"] for name in STUDENTS}
    for name in STUDENTS:
        assert followed[name]["kl_forward"]["mean"] == pytest.approx(kl[name] / tokens, rel=1e-3)
        assert 0 <= followed[name]["agreement"]["mean"] <= 1
        assert followed[name]["own"]["kl_reverse"]["mean"] > 0
    assert followed["kd"]["agreement"]["mean"] > followed["sft"]["agreement"]["mean"]

    # What a copy in 8 bits loses: its own answers are scored, and it is compared with the student on the student's.
    copy = load_language_model(read_pointer(only(folder, "model-kd@int8")))
    lost = fmean(nats for row in kl_nats(students["kd"], copy, groups, 32) for nats in row)
    assert 0 < lost < kl["kd"] / 10
    shown = report["students"]["kd"]["quantized"]
    assert shown["kind"] == "int8"
    assert 0 < shown["fidelity"]["kl_forward"]["mean"] < followed["kd"]["kl_forward"]["mean"] / 10
    assert shown["fidelity"]["agreement"]["mean"] > 0.9
    for name in ("truth", "length_tokens", "win_rate"):
        assert shown[name]["n"] == report["students"]["kd"][name]["n"]
    page = (folder / f"runs/{config['name']}/report.html").read_text()
    assert "int8 KL" in page
    assert not re.search(r">\s*kd@int8\s*<", page)  # it is no model of the results; stages are named after it


def held_out(folder: Path, teacher: LanguageModel) -> Any:
    """The teacher's answers to the held-out prompts, which nothing was trained on."""
    prompts = {one.id: one for one in read_jsonl(only(folder, "prompts") / "prompts.jsonl", Prompt)}
    answers = list(read_jsonl(only(folder, "answers-teacher") / "answers.jsonl", Answer))
    assert len(answers) > 10
    exchanges = (PromptWithResponses(prompts[one.prompt_id].messages, [one.text], [one.finish]) for one in answers)
    return tokenise(teacher.conversation, exchanges, Limits(96, 96, None)).groups


@pytest.mark.timeout(300)
def test_two_processes_store_and_distil_under_zero_3(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    write_config(folder / "run.yaml", distilled(config, max_steps=4))
    zero3 = f"runtime.deepspeed={REPOSITORY}/configs/deepspeed/zero3.json"
    for until in ("student-kd_16", "student-kd"):
        ended = forked.run(folder, "run", "run.yaml", zero3, "--until", until, environments=ranks(2, PORT))
        assert ended.code == 0, ended.errors[-6000:]
        log = [json.loads(line) for line in (only(folder, until) / "metrics.jsonl").read_text().splitlines()]
        assert all(0 < entry["divergence"] < 20 for entry in log)
    assert len(list(only(folder, "teacher_tokens-kd_16").glob("*.arrow"))) == 2
