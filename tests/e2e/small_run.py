"""A run of all stages that takes seconds: a few prompts of the quickstart world and models of about 20 thousand parameters."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from examples.quickstart.__main__ import quickstart_files

PROMPTS, DEMONSTRATIONS = 60, 300
SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 96,
}


def write_data(folder: Path) -> None:
    """prompts.jsonl, and the demonstrations of start and teacher."""
    files = _quickstart_files()
    write_rows(folder / "prompts.jsonl", files["prompts.jsonl"][:PROMPTS])
    for who in ("student", "teacher"):
        write_rows(folder / f"{who}_demonstrations.jsonl", files[f"{who}_demonstrations.jsonl"][:DEMONSTRATIONS])


@cache
def _quickstart_files() -> dict[str, list[dict[str, str]]]:
    """Making them takes a second."""
    return quickstart_files()


def write_rows(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def small_config() -> dict[str, Any]:
    """Paths are relative: the run's working directory is where `write_data` wrote."""
    training = {"batch_size": 16, "max_steps": 4, "learning_rate": 1e-3}
    return {
        "name": "small",
        "seed": 3,
        "prompts": {"source": {"path": "prompts.jsonl"}, "held_out": 0.3},
        "start": {"from_scratch": SIZES},
        "sft": {
            "demonstrations": {"path": "student_demonstrations.jsonl"},
            "learning_rate": 1e-2,
            "batch_size": 16,
            "max_steps": 30,
        },
        "teacher": {
            "from_scratch": SIZES,
            "sft": {
                "demonstrations": {"path": "teacher_demonstrations.jsonl"},
                "learning_rate": 1e-2,
                "batch_size": 16,
                "max_steps": 30,
            },
        },
        "candidates": {"per_prompt": 3, "from": ["start"], "max_new_tokens": 12},
        "judge": {"kind": "likelihood"},
        "reward_model": training,
        "students": {
            "dpo": {"objective": {"kind": "dpo"}, **training},
            "pro": {"objective": {"kind": "pro"}, **training},
        },
        "evaluation": {"truth": "examples.quickstart.truth:truth"},
        "runtime": {"save_steps": 2, "per_device_train_batch_size": 16},
    }


def write_config(path: Path, config: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(config, sort_keys=False).replace("1.0e-", "1e-"))


def start_folder(folder: Path) -> Path:
    """The folder that a run's start was saved into."""
    (found,) = (folder / "runs" / "store").glob("start-*/model")
    return found
