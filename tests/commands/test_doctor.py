import os
import time
from pathlib import Path

import pytest

from aligndistill.commands.doctor import examine
from aligndistill.config.run import RunConfig
from tests.e2e.small_run import small_config
from tests.models.chat_families import tokenizer_of
from tests.tiny_models import write_tiny_model
from tests.training.on_policy.policy_server import PolicyServer


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


@pytest.mark.parametrize("dev_mode", [True, False])
def test_a_server_of_rollouts_is_asked_whether_it_is_ready(dev_mode: bool, tmp_path: Path) -> None:
    with PolicyServer(write_tiny_model(tmp_path / "start"), dev_mode=dev_mode) as server:
        objective = {"kind": "ppo", "server": server.rollouts().model_dump()}
        lines: list[str] = []
        examine(RunConfig.model_validate({**small_config(), "students": {"mine": {"objective": objective}}}), lines.append)
    (line,) = [line for line in lines if "student mine" in line]
    assert line.startswith("ok " if dev_mode else "BAD")
    assert f"127.0.0.1:{server.port} can sample and load weights" in line or "VLLM_SERVER_DEV_MODE=1" in line


def test_what_the_chat_templates_of_local_models_do_is_shown(tmp_path: Path) -> None:
    for family in ("qwen3", "gemma2", "deepseek_r1_distill", "llama3_2"):
        tokenizer_of(family).save_pretrained(write_tiny_model(tmp_path / family))
    config = {
        **small_config(),
        "start": {"model": str(tmp_path / "deepseek_r1_distill")},
        "sft": None,
        "teacher": {"model": str(tmp_path / "qwen3")},
        "models": {
            "examiner": {"model": str(tmp_path / "deepseek_r1_distill")},
            "gemma": {"model": str(tmp_path / "gemma2")},
            "llama": {"model": str(tmp_path / "llama3_2")},
            "absent": {"model": "nobody-has/this-model"},
            "wrong": {"model": str(tmp_path / "qwen3"), "template_arguments": {"nothing": 1}},
            "text": {"model": str(tmp_path / "qwen3"), "layout": "plain"},
        },
    }
    lines: list[str] = []
    assert not examine(RunConfig.model_validate(config), lines.append)
    told = {line.split()[1]: line for line in lines}
    assert told["teacher"].startswith("ok ")
    assert r"prompts end with '<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n'" in told["teacher"]
    assert "answers end with '<|im_end|>'; does not think before it answers; writes no date" in told["teacher"]
    assert told["gemma"].startswith("ok ")
    assert "refuses a system turn, a later system turn, two user turns in a row, an assistant turn first" in told["gemma"]
    assert "writes a fixed date" in told["llama"]
    for name, mark in (("start", "BAD"), ("examiner", "ok ")):  # it may judge, and cannot be trained
        assert told[name].startswith(mark)
        assert "thinks before it answers" in told[name]
        assert "ends its prompt with" in told[name]
    assert "not on this machine yet" in told["absent"]
    assert told["wrong"].startswith("BAD")
    assert "no variable 'nothing'" in told["wrong"]
    assert "text" not in told
