"""`check --print`: the config as a run reads it can be run instead of the original, and does the same work."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from aligndistill.cli.app import app
from aligndistill.config.load import load_config
from aligndistill.pipeline import pipeline
from tests.commands.check.test_check import DEMONSTRATIONS, QUESTIONS, whole, write_model
from tests.e2e.small_run import write_config, write_rows

KEY = "sk-this-is-the-key-itself"
SERVER = {"kind": "endpoint", "base_url": "http://localhost:9/v1", "name": "m", "api_key_env": "MY_KEY"}
PPO = {"kind": "ppo", "reward": [{"source": "judge"}, {"source": {"kind": "rubric", "model": SERVER}, "weight": 2}]}
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "seeds": {
        "seeds": [0, 1],
        "students": {
            "dpo": {"objective": {"kind": "dpo"}},
            "kto": {"objective": {"kind": "kto", "split": "margin", "margin": 0.5}},
        },
    },
    "references": {
        "judge": {"kind": "panel", "members": {n: {"judge": {"kind": "pairwise", "model": {**SERVER, "name": n}}} for n in "ab"}},
        "evaluation": {"judge": "same"},
        "students": {"online": {"objective": PPO}},
    },
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", KEY)
    write_model(tmp_path / "start")
    write_rows(tmp_path / "prompts.jsonl", QUESTIONS)
    write_rows(tmp_path / "demonstrations.jsonl", DEMONSTRATIONS)
    (tmp_path / "my_judge.py").write_text("def grade(prompt, responses): ...\n\ntruth = grade\n")
    return tmp_path


def folders(config: Path) -> dict[str, Path]:
    """Every stage with its folder, whose name is the fingerprint of what it does; the report shows the config as it was written."""
    return {stage.name: stage.folder(Path("store")) for stage in pipeline(load_config([config])).stages if stage.name != "report"}


@pytest.mark.parametrize("case", CASES)
def test_what_is_printed_passes_check_and_does_the_same_work(case: str, here: Path) -> None:
    write_config(here / "mine.yaml", {**whole(), **CASES[case]})
    printed = CliRunner().invoke(app, ["check", "mine.yaml", "seed=3", "--print"])
    assert printed.exit_code == 0, printed.output
    assert KEY not in printed.output
    (here / "printed.yaml").write_text(printed.stdout)
    write_config(here / "mine.yaml", {**whole(), **CASES[case], "seed": 3})
    assert folders(here / "printed.yaml") == folders(here / "mine.yaml")
    again = CliRunner().invoke(app, ["check", "printed.yaml", "--print"])
    assert (again.exit_code, again.stdout) == (0, printed.stdout)
    as_json = json.loads(CliRunner().invoke(app, ["check", "printed.yaml", "--print", "--json"]).stdout)
    assert as_json["config"] == yaml.safe_load(printed.stdout)


def test_a_config_that_cannot_run_is_printed_with_its_error(here: Path) -> None:
    write_config(here / "mine.yaml", whole())
    (here / "prompts.jsonl").unlink()
    printed = CliRunner().invoke(app, ["check", "mine.yaml", "--print"])
    assert printed.exit_code == 3
    assert yaml.safe_load(printed.stdout)["prompts"]["source"]["path"] == "prompts.jsonl"
    assert "prompts.jsonl" in printed.stderr
