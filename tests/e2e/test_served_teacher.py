"""A run whose student learns from a teacher behind a server, token by token: to its report, and when the server fails midway."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.chat.fault_server import Act, error
from tests.e2e.command import ForkServer, ranks
from tests.e2e.small_run import write_config
from tests.e2e.test_plan_and_budget import planned
from tests.e2e.test_processes import zero
from tests.training.on_policy.teacher_server import TeacherServer

UPDATES, ANSWERS = 4, 8 * 2
PORT = 29800 + os.getpid() % 90


@pytest.fixture
def teacher(folder: Path) -> Path:
    """The start with other weights."""
    shutil.copytree(folder / "start", folder / "teacher")
    file = folder / "teacher" / "model.safetensors"
    torch.manual_seed(0)
    save_file({name: value + 0.1 * torch.randn_like(value) for name, value in load_file(file).items()}, file, {"format": "pt"})
    return folder / "teacher"


@pytest.fixture
def server(teacher: Path) -> Iterator[TeacherServer]:
    with TeacherServer(AutoModelForCausalLM.from_pretrained(teacher, dtype="float32").eval()) as running:
        yield running


def taught_by(server: TeacherServer, **settings: Any) -> dict[str, Any]:
    address = {"kind": "endpoint", "base_url": server.base_url, "name": "teacher", "timeout_seconds": 20, "max_retries": 0}
    return {**address, "tokenizer": "./teacher", **settings}


def distilling(config: dict[str, Any], teacher: dict[str, Any], name: str) -> dict[str, Any]:
    objective = {"kind": "on_policy_distil", "form": "sampled", "samples_per_prompt": 2}
    student = {"batch_size": 8, "max_steps": UPDATES, "learning_rate": 1e-3, "max_response_tokens": 12}
    kept = {key: config[key] for key in ("seed", "prompts", "start")}
    runtime = {**config["runtime"], "save_steps": 1}
    run = {"name": name, "teacher": teacher, "students": {"opd": {"objective": objective, **student}}, "runtime": runtime}
    return {**kept, **run, "evaluation": {"max_new_tokens": 8}}


def student_of(folder: Path, name: str, forked: ForkServer, *until: str) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """The log and weights of a run's student."""
    ended = forked.run(folder, "run", f"{name}.yaml", *until)
    assert ended.code == 0, ended.errors
    (found,) = (one for one in (folder / "runs/store").glob("student-opd-*") if (one / "manifest.json").exists())
    return [json.loads(line) for line in (found / "metrics.jsonl").read_text().splitlines()], load_file(
        found / "model/model.safetensors"
    )


@pytest.mark.timeout(300)
def test_a_run_comes_to_its_report_with_the_student_of_a_local_teacher(
    forked: ForkServer, folder: Path, config: dict[str, Any], server: TeacherServer
) -> None:
    write_config(folder / "served.yaml", distilling(config, taught_by(server), "served"))
    before = forked.run(folder, "plan", "served.yaml")
    assert before.code == 0, before.errors
    assert not server.bodies
    assert planned(before.output, "student-opd", "teacher")["requests"] == UPDATES * ANSWERS
    log, weights = student_of(folder, "served", forked)
    assert len(server.asked) == 1 + UPDATES * ANSWERS  # the first one finds out whether it answers
    assert "opd" in json.loads((folder / "runs/served/report.json").read_text())["students"]
    spent = [json.loads(line) for line in (folder / "runs/served/spent.jsonl").read_text().splitlines()]
    assert sum(entry["requests"] for entry in spent) == len(server.bodies)

    shutil.rmtree(folder / "runs")
    write_config(folder / "local.yaml", distilling(config, {"model": "./teacher"}, "local"))
    local_log, local_weights = student_of(folder, "local", forked, "--until", "student-opd")
    for name in ("loss", "divergence", "grad_norm"):
        assert log[0][name] == pytest.approx(local_log[0][name], rel=1e-5), name
    moved = max((local_weights[name] - value).abs().max() for name, value in load_file(folder / "start/model.safetensors").items())
    assert max((weights[name] - value).abs().max() for name, value in local_weights.items()) < 0.05 * moved


@pytest.mark.timeout(300)
def test_a_server_that_fails_midway_ends_the_run_and_the_same_command_resumes_it(
    forked: ForkServer, folder: Path, config: dict[str, Any], server: TeacherServer
) -> None:
    def in_the_third_update(body: dict[str, Any], number: int) -> Act | None:
        return error(503, "gone") if len(server.asked) >= 1 + 2 * ANSWERS + 5 else None

    server.instead = in_the_third_update
    write_config(folder / "served.yaml", distilling(config, taught_by(server, concurrency=2), "served"))
    ended = forked.run(folder, "run", "served.yaml", "--until", "student-opd")
    assert ended.code == 4
    last, resume = ended.errors.strip().splitlines()[-2:]
    assert re.match(rf"error: endpoint {server.base_url} teacher: no reply after 1 attempts: HTTP 503: .*gone", last)
    assert last.endswith("Run the same command again to resume from the last checkpoint.")
    assert resume == "to resume: aligndistill run served.yaml --until student-opd"
    server.instead = None
    again = forked.run(folder, "run", "served.yaml", "--until", "student-opd")
    assert again.code == 0, again.errors
    assert "resuming from checkpoint-2" in again.errors + again.output
    log, weights = student_of(folder, "served", forked, "--until", "student-opd")

    shutil.rmtree(folder / "runs")
    whole_log, whole = student_of(folder, "served", forked, "--until", "student-opd")
    assert all(torch.equal(value, weights[name]) for name, value in whole.items())
    assert [row["loss"] for row in log] == [row["loss"] for row in whole_log]


@pytest.mark.timeout(300)
def test_a_server_without_prompt_logprobs_is_found_before_a_model_is_loaded(
    forked: ForkServer, folder: Path, config: dict[str, Any], server: TeacherServer
) -> None:
    teacher = taught_by(server, body={"prompt_logprobs": None})  # a server that ignores the field
    write_config(folder / "served.yaml", distilling(config, teacher, "served"))
    ended = forked.run(folder, "run", "served.yaml", "--until", "student-opd")
    assert ended.code == 4
    assert "answered with no prompt_logprobs. The server must give prompt_logprobs for token ids" in ended.complaint
    assert len(server.bodies) == 1


@pytest.mark.timeout(300)
def test_two_processes_ask_about_their_own_answers(
    forked: ForkServer, folder: Path, config: dict[str, Any], server: TeacherServer
) -> None:
    write_config(folder / "served.yaml", distilling(config, taught_by(server), "served"))
    shared = ("run", "served.yaml", "--until", "student-opd", "students.opd.max_steps=1")
    asked = []
    for processes in (1, 2):
        server.asked.clear()
        shutil.rmtree(folder / "runs", ignore_errors=True)
        ended = forked.run(folder, *shared, zero(2), environments=ranks(processes, PORT))
        assert ended.code == 0, ended.errors[-6000:]
        asked.append(sorted(server.asked[processes:]))  # behind each process's first question
    assert asked[0] == asked[1]
    assert len(asked[0]) == ANSWERS
