import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aligndistill.cli.app import app
from aligndistill.commands.completion import config_arguments, config_keys, run_folders, run_models, stage_names
from tests.e2e.command import ENVIRONMENT, Ended
from tests.imports import HEAVY, TOLD, imported


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, and a folder that is none."""
    monkeypatch.chdir(tmp_path)
    for name in ("quick", "slow"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("name: x")
        (folder / "plan.json").write_text(
            json.dumps({"stages": [{"name": "prompts"}, {"name": "rankings"}, {"name": f"student-{name}"}]})
        )
        stages = {"prompts": "a", "start": "b", f"student-{name}": "c", "reward_model": "d"}
        (folder / "artifacts.json").write_text(json.dumps(stages))
    (tmp_path / "runs/store").mkdir()
    (tmp_path / "runs/.hidden").mkdir()
    return tmp_path


def test_folders_of_runs() -> None:
    assert run_folders("r") == ["runs/"]
    assert run_folders("runs/") == ["runs/quick", "runs/slow", "runs/store/"]
    assert run_folders("runs/q") == ["runs/quick"]
    assert run_folders("nothing/here") == []


def test_models_of_a_run() -> None:
    assert run_models("runs/q") == ["runs/quick", "runs/quick:quick", "runs/quick:start"]
    assert run_models("runs/quick:s") == ["runs/quick:start"]
    assert run_models("runs/none:s") == []


def test_stages_of_all_runs_and_groups_of_them() -> None:
    assert stage_names("") == ["students", "answers", "prompts", "rankings", "student-quick", "student-slow"]
    assert stage_names("ra") == ["rankings"]


def test_a_file_that_is_no_plan_stops_nothing(here: Path) -> None:
    (here / "runs/quick/plan.json").write_text("[")
    (here / "runs/slow/artifacts.json").write_text("[]")
    assert stage_names("student") == ["students", "student-slow"]
    assert run_models("runs/slow:") == []


def test_keys_of_sections_behind_names_and_of_every_kind() -> None:
    assert config_keys("students.mine.lear") == ["students.mine.learning_rate="]
    assert config_keys("see") == ["seed=", "seeds="]
    assert "evaluation.judge.members.a.judge.template=" in config_keys("evaluation.judge.members.a.judge.")
    objective = config_keys("students.mine.obj")  # the only one: its keys, without a space in between
    assert {"students.mine.objective.beta=", "students.mine.objective.reward."} < set(objective)
    assert len(set(objective)) == len(objective)
    assert config_keys("students.") == config_keys("nothing.") == config_keys("seed.x") == []


def test_config_files_and_keys(here: Path) -> None:
    for name in ("rounds.yaml", "other.yml", "rounds.txt", ".hidden.yaml"):
        (here / name).touch()
    assert config_arguments("") == ["other.yml", "rounds.yaml", "runs/"]
    assert config_arguments("r") == ["rounds.yaml", "runs/", "rankings.", "reward_model.", "rounds.", "runtime."]
    assert config_arguments("runs/q") == ["runs/quick"]
    assert config_arguments("runs/quick/c") == ["runs/quick/config.yaml"]
    assert config_arguments("none/") == []


@pytest.mark.process
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str) -> None:
    ended = CliRunner().invoke(app, ["completion", shell])
    assert ended.exit_code == 0
    assert "_ALIGNDISTILL_COMPLETE" in ended.stdout
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=ended.stdout, text=True, check=False).returncode == 0


@pytest.mark.process
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    "script",
    [
        "source <(aligndistill completion bash)",
        "aligndistill --install-completion bash > /dev/null; source ~/.bash_completions/aligndistill.sh",
    ],
)
def test_bash_completes_by_the_script(script: str, here: Path) -> None:
    """As a person does: source the script, type, press Tab. Words are as bash splits them: at colons, too."""
    command = here / "aligndistill"
    command.write_text(f"#!{sys.executable}\nfrom aligndistill.cli.app import main\nmain()\n")
    command.chmod(0o755)
    expected = {
        "run c.yaml students.dpo.objective.cr": config_keys("students.dpo.objective.cr"),
        "chat runs/q": ["runs/quick", "runs/quick:quick", "runs/quick:start"],
        "chat runs/quick : s": ["start"],
        "chat runs/quick :": ["quick", "start"],
        "chat runs/quick : quick --agai": ["--against"],
        'chat "runs/quick:s': ["runs/quick:start"],
        "chat runs/quick:s": ["start"],  # as bash 3.2 has it
        "chat runs/none : s": [],
    }
    typed = f"""
        {script}
        COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
        for words in {" ".join(f"'{words}'" for words in expected)}; do
            COMP_WORDS=(aligndistill $words); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            $(complete -p aligndistill | sed 's/.*-F \\([^ ]*\\).*/\\1/') aligndistill
            echo "${{COMPREPLY[@]}}"
        done
    """
    told = {"PATH": f"{here}:{os.environ['PATH']}", "HOME": str(here), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    environment = {**os.environ, **ENVIRONMENT, **told}
    ended = subprocess.run(
        ["bash", "-c", typed], env=environment, cwd=here, capture_output=True, text=True, timeout=120, check=False
    )
    assert all(list(expected.values())[:-1])
    assert [line.split() for line in ended.stdout.splitlines()] == list(expected.values()), ended.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("aligndistill chat runs/q", ["runs/quick", "runs/quick:quick", "runs/quick:start"]),
        ("aligndistill run students.dpo.lear", ["students.dpo.learning_rate="]),
        ("aligndistill chat --agai", ["--against"]),
        ("aligndistill completion z", ["zsh"]),
    ],
)
def test_completing_imports_no_library_that_computes(words: str, expected: list[str], here: Path) -> None:
    """As bash asks, through a script of the name that users type."""
    (here / "aligndistill").write_text("from aligndistill.cli.app import main\nmain()\n")
    asked = {"_ALIGNDISTILL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "2"}
    ended = subprocess.run(
        [sys.executable, "aligndistill"],
        cwd=here,
        env={**os.environ, **ENVIRONMENT, **TOLD, **asked},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.stdout.split() == expected
    found = imported(Ended(ended.returncode, ended.stdout, ended.stderr))
    assert "typer" in found
    assert not found & (HEAVY | {"pydantic", "rich"})
    assert ("aligndistill.commands.completion" in ended.stderr) == (words.split()[-1] in ("runs/q", "students.dpo.lear"))
    assert "aligndistill.config.run" not in ended.stderr  # the schema
