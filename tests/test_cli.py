import errno
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

import aligndistill
from aligndistill.cli import app as cli
from aligndistill.commands import audit
from aligndistill.errors import ConfigError, DataError, Interrupted, JudgeError, TrainingError, UserError
from aligndistill.processes.full_disk import is_full_disk


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (DataError("x"), 3),
        (JudgeError("x"), 4),
        (TrainingError("x"), 1),
        (Interrupted("x"), 5),
        (UserError("x"), 2),
        (KeyboardInterrupt(), 5),
        (OSError(errno.ENOSPC, "No space left on device", "store/rows.jsonl"), 3),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 3),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), 3),
    ],
)
def test_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, cli.user_errors():
        raise error
    assert ended.value.exit_code == code
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.out == ""


def test_what_torch_says_of_a_full_disk_is_in_the_context_of_what_it_raises() -> None:
    behind = RuntimeError("basic_ios::clear: iostream error")
    raised = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 197760 vs 197652")
    assert not is_full_disk(raised)
    raised.__context__ = behind
    assert is_full_disk(raised)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), ValueError("ours"), AssertionError()])
def test_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), cli.user_errors():
        raise error


def write_what_it_names(folder: Path) -> None:
    """A model folder without weights that could be loaded, prompts and a judge: as much as `check` looks at."""
    (folder / "start").mkdir()
    for name, text in (("config.json", "{}"), ("model.safetensors", ""), ("tokenizer_config.json", '{"chat_template": "x"}')):
        (folder / "start" / name).write_text(text)
    (folder / "prompts.jsonl").write_text("".join(f'{{"prompt": "What is {n}?"}}\n' for n in range(50)))
    (folder / "judge.py").write_text("def grade(prompt, responses): ...\n")


def called(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aligndistill", *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


VALID = """\
name: small
prompts: {source: {path: prompts.jsonl}}
start: {model: ./start}
judge: {kind: function, function: "judge:grade"}
"""


@pytest.mark.process
@pytest.mark.parametrize("before", [(), ("--local_rank=0",)])
def test_the_flag_that_deepspeed_adds_is_removed(tmp_path: Path, before: tuple[str, ...]) -> None:
    (tmp_path / "small.yaml").write_text(VALID)
    write_what_it_names(tmp_path)
    ended = called(tmp_path, *before, "check", "small.yaml", "seed=3")
    assert (ended.returncode, ended.stdout) == (0, "small: the config is valid.\n"), ended.stderr


@pytest.mark.process
def test_files_and_overrides_are_distinguished(tmp_path: Path) -> None:
    (tmp_path / "lr=1.yaml").write_text(VALID)
    write_what_it_names(tmp_path)
    (tmp_path / "more.yaml").write_text("name: more\n")
    ended = called(tmp_path, "check", "lr=1.yaml", "more.yaml")
    assert ended.stdout == "more: the config is valid.\n"
    ended = called(tmp_path, "check", "lr=1.yaml", "seed=x")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: argument seed=...: seed: expected")


@pytest.mark.process
def test_no_command_shows_what_there_is() -> None:
    ended = called(Path(), "--help")
    assert ended.returncode == 0
    for name in ("run", "check", "plan", "stage", "compare", "doctor"):
        assert name in ended.stdout


def test_help_groups_the_commands_and_has_examples() -> None:
    ended = CliRunner().invoke(cli.app, ["--help"])
    assert ended.exit_code == 0
    panels = [line.strip("╭─╮ ") for line in ended.stdout.splitlines() if line.startswith("╭")]
    assert panels == ["Options", "Start", "Run", "Look", "Share"]
    assert "aligndistill init first --quickstart" in ended.stdout


def test_the_version_is_one_line() -> None:
    ended = CliRunner().invoke(cli.app, ["--version"])
    assert ended.exit_code == 0
    assert ended.stdout == f"aligndistill {aligndistill.__version__}, Python {sys.version.split()[0]}\n"


def test_quiet_and_verbose_exclude_each_other() -> None:
    ended = CliRunner().invoke(cli.app, ["run", "none.yaml", "--quiet", "--verbose"])
    assert ended.exit_code == 2
    assert "give one of them" in ended.stderr


def test_no_help_ends_in_a_full_stop_and_each_is_one_sentence() -> None:
    """Those of our commands, of groups, and of the options that Typer adds."""

    def helps(command: Any, name: str) -> Iterator[tuple[str, str]]:
        yield name, command.help
        context = command.context_class(command, info_name=name)
        yield from ((f"{name} {one.name}", one.help) for one in command.get_params(context))
        for inner, one in getattr(command, "commands", {}).items():
            yield from helps(one, f"{name} {inner}")

    found = dict(helps(get_command(cli.app), "aligndistill"))
    assert len(found) > 80
    assert not [name for name, text in found.items() if re.search(r"\.$|\.\n|[a-z]\. [A-Z]", text)]


@pytest.mark.parametrize(
    "words", [["--help"], ["check", "--help"], ["export", "--help"], ["judge", "audit", "--help"], ["view", "--help"]]
)
def test_help_shows_no_types_of_python(words: list[str]) -> None:
    ended = CliRunner().invoke(cli.app, words, env={"COLUMNS": "80"})
    assert not re.search(r"<\w+(\[\w+\])?>|\{|\}", ended.stdout), "flags and arguments show their names alone"


def test_an_options_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells expand `--export ~/pages`, and leave `--export=~/pages` as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    got: list[Path | None] = []
    monkeypatch.setattr(audit, "print_audit", lambda run, labels, as_json: got.append(labels))
    for words in (["judge", "audit", "run", "--labels=~/labels.jsonl"], ["judge", "audit", "run", "--labels=votes"]):
        assert CliRunner().invoke(cli.app, words).exit_code == 0
    assert got == [tmp_path / "labels.jsonl", Path("votes")]
