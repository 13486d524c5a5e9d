"""`--json`: one object on standard output, everything else on standard error, exit codes as without it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

import aligndistill
from aligndistill.cli import app as cli
from tests.commands.view.fake_run import write_run
from tests.e2e.small_run import small_config, write_config, write_data
from tests.test_cli import VALID, write_what_it_names


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "small.yaml").write_text(VALID)
    write_what_it_names(tmp_path)
    return tmp_path


def call(*arguments: str) -> tuple[Result, dict[str, Any]]:
    ended = CliRunner().invoke(cli.app, [*arguments, "--json"])
    assert ended.stdout, (ended.exception, ended.stderr)
    (line,) = ended.stdout.splitlines()
    values = json.loads(line)
    assert (values["schema"], values["aligndistill"]) == (1, aligndistill.__version__)
    return ended, values


def test_check_says_what_is_valid(here: Path) -> None:
    ended, values = call("check", "small.yaml")
    assert ended.exit_code == 0
    assert (values["command"], values["valid"], values["errors"], values["name"]) == ("check", True, [], "small")


def test_check_says_what_is_not_on_both_streams(here: Path) -> None:
    ended, values = call("check", "small.yaml", "sed=1")
    assert ended.exit_code == 2
    assert not values["valid"]
    assert "did you mean 'seed'" in values["errors"][0]
    assert "did you mean 'seed'" in ended.stderr
    (here / "prompts.jsonl").unlink()
    ended, values = call("check", "small.yaml")
    assert ended.exit_code == 3
    assert "prompts.jsonl" in values["errors"][0]


def test_plan_has_the_stages_with_their_reasons(here: Path) -> None:
    write_data(here)
    write_config(here / "whole.yaml", small_config())
    ended, values = call("plan", "whole.yaml")
    assert ended.exit_code == 0, ended.output
    prompts = next(one for one in values["stages"] if one["name"] == "prompts")
    assert (prompts["state"], prompts["reason"], prompts["usd"]) == ("to do", "not run yet", 0.0)
    assert values["problems"] == []


def test_the_audit_of_a_run(here: Path) -> None:
    run = write_run(here)
    config = json.loads((run.folder / "config.yaml").read_text())
    config["teacher"] = {"kind": "endpoint", "base_url": "http://localhost/v1", "name": "m"}
    config["prompts"] = {"source": {"path": "prompts.jsonl"}}
    del config["students"]["ppo"]
    (run.folder / "config.yaml").write_text(json.dumps(config))
    ended, values = call("judge", "audit", str(run.folder))
    assert ended.exit_code == 0, ended.output
    assert values["metrics"]["verdicts"] == len(run.labelled)
    assert values["votes"] is None


def test_doctor_lists_its_findings(here: Path) -> None:
    ended, values = call("doctor")
    assert ended.exit_code == (0 if values["passed"] else 1)
    assert {"what", "found", "passed", "warns"} == set(values["findings"][0])
