"""A real allocation that fails in a training step: the message says what to set, and with that the run ends well."""

import shutil
from pathlib import Path
from typing import Any

from tests.e2e import failing_reward
from tests.e2e.command import ForkServer
from tests.e2e.small_run import SIZES, small_config, write_config


def test_the_message_says_what_to_set_and_that_helps(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    shutil.copy(failing_reward.__file__, folder)
    wide = {**SIZES, "intermediate_size": 8192}
    ppo = {
        "kind": "ppo",
        "reward": {"kind": "function", "function": "failing_reward:leaves_little_memory"},
        "critic": "shared",
        "samples_per_prompt": 2,
        "ppo_epochs": 1,
    }
    config["prompts"]["source"]["limit"] = 24
    config["start"] = {"from_scratch": wide}
    config["sft"] = {**small_config()["sft"], "max_steps": 1}
    config["students"] = {
        "ppo": {"objective": ppo, "batch_size": 16, "learning_rate": 1e-4, "max_steps": 1, "max_response_tokens": 12}
    }
    config["runtime"]["per_device_eval_batch_size"] = 1
    write_config(folder / "run.yaml", config)
    arguments = ("run", "run.yaml", "--until", "student-ppo")
    ended = forked.run(folder, *arguments)
    assert ended.code == 1, ended.errors
    assert "out of memory in step 1 of 1, with 16 prompts per micro-batch on each of 1 processes" in ended.complaint
    assert "Set runtime.per_device_train_batch_size to 8" in ended.complaint
    assert "Traceback" not in ended.errors
    ended = forked.run(folder, *arguments, "runtime.per_device_train_batch_size=1")
    assert ended.code == 0, ended.errors
