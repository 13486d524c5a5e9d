"""The folder of a run with a student, as a later run of a chain finds it."""

import json
from pathlib import Path
from typing import Any

from aligndistill.config.load import dump_config
from aligndistill.config.run import RunConfig
from aligndistill.store.artifacts import finish

VOCABULARY = {"a": 0, "b": 1}


def config_of(name: str, **sections: Any) -> RunConfig:
    """A run with the student `kd`."""
    base = {
        "name": name,
        "prompts": {"source": {"path": "prompts.jsonl"}},
        "start": {"model": "./start"},
        "teacher": {"model": "./start"},
        "judge": {"kind": "likelihood"},
        "candidates": {"from": ["start", "teacher"]},
        "students": {"kd": {"objective": {"kind": "distil"}}},
    }
    return RunConfig.model_validate({**base, **sections})


def write_model(folder: Path, vocabulary: dict[str, int] = VOCABULARY, weights: bytes = b"w") -> None:
    """What is looked at without loading a model."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))


def write_run(config: RunConfig, *, finished: bool = True, weights: bytes = b"w", **pointer: Any) -> Path:
    """Write the run's folder and the folder of its student `kd`, whose `model.json` says this; returns the latter."""
    folder, student = config.runtime.runs / config.name, config.runtime.store / f"student-kd-{config.name}"
    write_model(student / "model", weights=weights)
    (student / "model.json").write_text(json.dumps({"path": "model", "layout": "plain", "adapter": None, **pointer}))
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(config))
    (folder / "artifacts.json").write_text(json.dumps({"student-kd": str(student)} if finished else {}))
    if finished:
        finish(student, stage="student-kd", stage_fingerprint="0", counts={}, dropped={}, metrics={}, wall_seconds=0)
    return student
