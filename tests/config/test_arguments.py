"""Files and overrides on a command line, and what a shell makes of braces without quotes."""

import shlex
from pathlib import Path

import pytest

from aligndistill.config.arguments import files_and_overrides
from aligndistill.errors import ConfigError


def test_what_has_an_equals_sign_and_is_no_file_is_an_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lr=1.yaml").touch()
    arguments = ["a.yaml", "seed=1", "lr=1.yaml", "start.lora={r: 32}", "from=[a, b]"]
    assert files_and_overrides(arguments) == (
        [Path("a.yaml"), Path("lr=1.yaml")],
        ["seed=1", "start.lora={r: 32}", "from=[a, b]"],
    )


def test_an_override_may_be_longer_than_a_files_name() -> None:
    long = f"students={{{', '.join(f'dpo-{one}: {{objective: {{kind: dpo}}}}' for one in range(200))}}}"
    assert files_and_overrides([long]) == ([], [long])


def split(key: str, example: str) -> str:
    advice = f"put the argument in quotes, as in '{key}={example}'"
    return f"argument {key}=...: the shell split this value at its spaces: {advice}"


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("a.yaml start.lora={r: 32}", [split("start.lora", "{...}")]),
        ("start.lora={r: 32, lora_alpha: 64} seed=1 a.yaml", [split("start.lora", "{...}")]),
        (
            "students={a: {objective: {kind: dpo}}} candidates.from=[start, teacher]",
            [split("students", "{...}"), split("candidates.from", "[...]")],
        ),
    ],
)
def test_a_value_that_the_shell_split_is_one_message(command: str, lines: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        files_and_overrides(shlex.split(command))
    assert str(caught.value).splitlines() == lines


def test_the_pieces_may_hold_secrets_and_are_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        files_and_overrides(shlex.split("teacher={password: hunter22} a.yaml"))
    assert "hunter22" not in str(caught.value)


def test_a_bracket_that_never_closes_is_left_to_the_reader_of_yaml() -> None:
    assert files_and_overrides(["seed=[1", "a.yaml"]) == ([Path("a.yaml")], ["seed=[1"])
