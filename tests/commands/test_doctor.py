import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aligndistill.commands.doctor import examine
from aligndistill.commands.output import Finding
from aligndistill.config.run import RunConfig
from tests.e2e.small_run import small_config
from tests.tiny_models import tiny_model, write_tiny_model
from tests.training.on_policy.policy_server import PolicyServer
from tests.training.on_policy.teacher_server import TeacherServer


def test_the_lock_of_a_killed_build_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    old, new = tmp_path / "cpu_adam" / "lock", tmp_path / "other" / "lock"
    for lock, age in ((old, 720), (new, 0)):
        lock.parent.mkdir()
        lock.touch()
        os.utime(lock, (time.time() - age,) * 2)
    lines: list[str] = []
    examine(None, lines.append)
    told = [line for line in lines if "lock" in line]
    assert len(told) == 1
    assert f"a build was killed 12 min ago and left {old}" in told[0]


def test_each_line_is_shown_before_the_next_thing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    before: list[str] = []

    def slow_server(_: RunConfig) -> Iterator[Finding]:
        before.extend(lines)
        yield Finding("teacher", "answers")

    monkeypatch.setattr("aligndistill.commands.doctor.server_findings", slow_server)
    assert examine(RunConfig.model_validate(small_config()), lines.append)
    assert before[0].startswith("ok   python")
    assert lines[len(before) :] == ["ok   teacher              answers"]


def test_a_quantised_start_without_bitsandbytes_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    start = {"model": "owner/name", "layout": "plain", "lora": {"r": 4}, "quantize": "int8"}
    config = RunConfig.model_validate({**small_config(), "start": start, "sft": None})
    lines: list[str] = []
    examine(config, lines.append)
    assert not any("BAD  bitsandbytes" in line for line in lines)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest))
    examine(config, lines.append)
    (line,) = [line for line in lines if "BAD  bitsandbytes" in line]
    assert line.endswith("not installed: pip install 'aligndistill[quantised]'")


def test_the_function_of_a_model_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "speaker_of_doctor.py").write_text("def speak(messages, sample, seed): return 'yes'\n")
    models = {name: {"kind": "function", "function": f"speaker_of_doctor:{name}"} for name in ("speak", "sing")}
    lines: list[str] = []
    assert not examine(RunConfig.model_validate({**small_config(), "models": models}), lines.append)
    found = {line.split()[1]: line for line in lines if "speaker_of_doctor" in line}
    assert found["speak"].startswith("ok ")
    assert found["sing"].startswith("BAD")
    assert "module 'speaker_of_doctor' has no 'sing'" in found["sing"]


@pytest.mark.parametrize("dev_mode", [True, False])
def test_a_server_of_rollouts_is_asked_whether_it_is_ready(dev_mode: bool, tmp_path: Path) -> None:
    with PolicyServer(write_tiny_model(tmp_path / "start"), dev_mode=dev_mode) as server:
        objective = {"kind": "ppo", "server": server.rollouts().model_dump()}
        lines: list[str] = []
        examine(RunConfig.model_validate({**small_config(), "students": {"mine": {"objective": objective}}}), lines.append)
    (line,) = [line for line in lines if "student mine" in line]
    assert line.startswith("ok " if dev_mode else "BAD")
    assert f"127.0.0.1:{server.port} can sample and load weights" in line or "VLLM_SERVER_DEV_MODE=1" in line


@pytest.mark.parametrize("gives", [True, False])
def test_a_teacher_that_reads_what_students_write_is_asked_about_tokens(gives: bool, tmp_path: Path) -> None:
    with TeacherServer(tiny_model(), spoil=None if gives else lambda choice: choice.pop("prompt_logprobs")) as server:
        teacher = server.config(tokenizer=str(write_tiny_model(tmp_path / "teacher"))).model_dump()
        whole = {key: value for key, value in small_config().items() if key in ("name", "prompts", "start", "sft")}
        students = {"mine": {"objective": {"kind": "on_policy_distil", "form": "sampled"}}}
        lines: list[str] = []
        examine(RunConfig.model_validate({**whole, "teacher": teacher, "students": students}), lines.append)
    (line,) = [line for line in lines if "given tokens" in line]
    assert line.startswith("ok " if gives else "BAD")
    assert "their log-probabilities" in line if gives else "answered with no prompt_logprobs" in line
