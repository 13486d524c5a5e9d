"""`aligndistill init`: what is written can be run, and nothing is overwritten."""

import json
import os
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aligndistill.cli.app import app
from aligndistill.commands.init.choices import Choices, Given, complete
from aligndistill.commands.init.init import TOY_PROMPTS
from aligndistill.commands.init.shipped import quickstart_files, shipped, templates
from aligndistill.commands.init.text import config_text
from aligndistill.config.load import load_config
from aligndistill.config.models import EndpointModel, Teacher
from aligndistill.errors import ConfigError

SERVER = ("--teacher", "http://localhost:8000/v1", "--teacher-name", "big")
ENDED = CliRunner()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def init(*arguments: str) -> str:
    ended = ENDED.invoke(app, ["init", *arguments])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def refused(*arguments: str) -> str:
    ended = ENDED.invoke(app, ["init", *arguments])
    assert ended.exit_code == 2, ended.output
    return ended.stderr


def test_toy_prompts_give_a_config_that_passes_check(tmp_path: Path) -> None:
    printed = init("first", "--toy", "--student", "some/student", *SERVER, "--objectives", "dpo,ppo", "--gpus", "0", "--yes")
    assert printed.splitlines() == [
        "wrote first/config.yaml",
        "next:",
        "  cd first",
        "  aligndistill plan config.yaml",
        "  aligndistill run config.yaml",
    ]
    prompts = [json.loads(line)["prompt"] for line in (tmp_path / "first/prompts.jsonl").read_text().splitlines()]
    assert prompts == list(TOY_PROMPTS)
    config = load_config(tmp_path / "first/config.yaml")
    assert isinstance(config.teacher, EndpointModel)
    assert config.teacher.name == "big"
    assert config.start is not None
    assert config.start.lora is not None
    assert set(config.students) == {"dpo", "ppo"}
    assert config.reward_model is not None
    assert config.name == "first"
    assert config.runtime.deepspeed is None


def test_a_folder_without_a_chat_template_is_read_as_a_transcript(tmp_path: Path) -> None:
    for name, settings in (("base", {}), ("instruct", {"chat_template": "{{ messages }}"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer_config.json").write_text(json.dumps(settings))
        init(f"run-{name}", "--toy", "--student", str(tmp_path / name), "--teacher", str(tmp_path / name), "--gpus", "0", "--yes")
        config = load_config(tmp_path / f"run-{name}/config.yaml")
        assert config.start is not None
        assert isinstance(config.teacher, Teacher)
        assert [config.start.layout, config.teacher.layout] == [{"base": "transcript", "instruct": "chat"}[name]] * 2


def test_a_config_with_something_to_fix_is_to_be_checked_first() -> None:
    printed = init("--toy", "--student", "./missing", "--teacher", "t", "--gpus", "0", "--yes")
    assert "to fix before the run" in printed
    assert printed.splitlines()[-3:-1] == ["  aligndistill check config.yaml", "  aligndistill plan config.yaml"]


def test_preferences_need_no_teacher(tmp_path: Path) -> None:
    row = {"prompt": "a?", "chosen": "b", "rejected": "c"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    init("--preferences", "pairs.jsonl", "--student", "some/student", "--objectives", "simpo", "--gpus", "2", "--yes")
    config = load_config(tmp_path / "config.yaml")
    assert config.judge is None
    assert config.prompts is None
    assert config.rankings.source is not None
    assert config.runtime.deepspeed == "zero2"


@pytest.mark.parametrize("judge", ["pairwise", "rubric", "likelihood"])
@pytest.mark.parametrize("objective", ["dpo", "simpo", "orpo", "kto", "cpo", "rrhf", "pro", "ppo", "best_of_n"])
def test_every_judge_with_every_objective_is_a_config(judge: str, objective: str, tmp_path: Path) -> None:
    answers = Choices("p.jsonl", None, 0.1, "some/student", "some/teacher", None, judge, (objective,), 1)
    (tmp_path / "c.yaml").write_text(config_text(answers, "run-1"))
    config = load_config(tmp_path / "c.yaml")
    assert config.name == "run-1"
    assert config.judge is not None
    assert config.judge.kind == judge


@pytest.mark.parametrize("value", ["a b", "1", "yes", "null", "#x", "a: b", "- a", "[x]", "C:\\models", "über", "~/m", "it's"])
def test_any_name_is_read_back_as_it_was_given(value: str, tmp_path: Path) -> None:
    answers = Choices("p.jsonl", None, 0.1, value, "some/teacher", None, "pairwise", ("dpo",), 0)
    (tmp_path / "c.yaml").write_text(config_text(answers, "run"))
    start = load_config(tmp_path / "c.yaml").start
    assert start is not None
    assert start.model == os.path.expanduser(value)


def test_missing_answers_name_the_option() -> None:
    assert "init cannot ask here: give --prompts FILE or --preferences FILE." in refused("--yes")
    Path("p.jsonl").write_text('{"prompt": "a"}\n')
    assert "give --student MODEL" in refused("--prompts", "p.jsonl", "--yes")
    assert "give --teacher URL" in refused("--prompts", "p.jsonl", "--student", "s", "--yes")
    with_server = ("--prompts", "p.jsonl", "--student", "s", "--teacher", "http://x/v1", "--yes")
    assert "give --teacher-name NAME" in refused(*with_server)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--judge", "none", "--teacher", "t"), "--judge none: prompts alone teach nothing"),
        (("--judge", "sorcery", "--teacher", "t"), "--judge sorcery: expected one of pairwise, rubric, likelihood, none."),
        (("--objectives", "dpo,magic", "--teacher", "t"), "--objectives magic: expected one of dpo, simpo"),
        (("--judge", "likelihood", *SERVER), "--judge likelihood reads a local model's probabilities"),
        (("--preferences", "p.jsonl"), "--prompts and --preferences: give one of them"),
        (("--template", "nosuch"), "there is no such template. Templates: frontier, hh, one-gpu"),
    ],
)
def test_impossible_answers_are_refused(arguments: tuple[str, ...], message: str) -> None:
    Path("p.jsonl").write_text('{"prompt": "a"}\n')
    assert message in refused("--prompts", "p.jsonl", "--student", "s", "--yes", *arguments)


def test_on_a_terminal_missing_answers_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("p.jsonl").write_text('{"prompt": "a"}\n')
    replies = iter(["p.jsonl", "some/student", "http://x/v1", "rubric", "big", "kto", "1"])
    asked = []

    def prompt(question: str, default: str | None) -> str:
        asked.append(question)
        return next(replies)

    monkeypatch.setattr("typer.prompt", prompt)
    answers = complete(Given(), found_gpus=1, asks=True)
    assert answers == Choices("p.jsonl", None, 0.25, "some/student", "http://x/v1", "big", "rubric", ("kto",), 1)
    assert len(asked) == 7


@pytest.mark.parametrize("answer", ["two", "-1", "1.5", "²"])
def test_a_number_of_gpus_that_is_none_is_refused_in_words(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("p.jsonl").write_text('{"prompt": "a"}\n')
    monkeypatch.setattr("typer.prompt", lambda question, default: answer)
    given = Given("p.jsonl", student="s", teacher="t", judge="rubric", objectives="dpo")
    with pytest.raises(ConfigError, match=f"'{answer}' GPUs: expected a whole number, 0 for training on the CPU."):
        complete(given, found_gpus=0, asks=True)


def test_an_objective_that_is_named_twice_is_one_student(tmp_path: Path) -> None:
    init("--toy", "--student", "s", "--teacher", "t", "--objectives", "dpo, kto,dpo", "--gpus", "0", "--yes")
    assert list(load_config(tmp_path / "config.yaml").students) == ["dpo", "kto"]


def test_a_file_of_pairs_is_recognised_as_preferences(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("p.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 300)
    replies = iter(["p.jsonl", "some/student", "dpo", "0"])
    monkeypatch.setattr("typer.prompt", lambda question, default: next(replies))
    answers = complete(Given(), found_gpus=0, asks=True)
    assert (answers.prompts, answers.preferences, answers.judge, answers.held_out) == (None, "p.jsonl", "none", 0.1)


def test_a_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    written = ("--toy", "--student", "s", "--teacher", "t", "--gpus", "0", "--yes")
    init(*written)
    init(*written)  # the same text
    (tmp_path / "config.yaml").write_text("name: mine\n")
    assert "config.yaml exists already. Give another folder, or --force to replace it." in refused(*written)
    assert (tmp_path / "config.yaml").read_text() == "name: mine\n"
    init(*written, "--force")
    assert load_config(tmp_path / "config.yaml").judge is not None


@pytest.mark.parametrize("name", sorted(templates()))
def test_a_shipped_config_is_copied_with_what_it_reads(name: str, tmp_path: Path) -> None:
    printed = init("here", "--template", name)
    (written,) = (tmp_path / "here").glob("*.yaml")
    assert load_config(written) is not None
    assert f"wrote here/{written.name}" in printed
    if name.startswith("quickstart"):
        assert "to fix before the run" not in printed
    if "launch/" in written.read_text():
        assert (tmp_path / "here/launch/local.sh").stat().st_mode & 0o111


def test_the_quickstart_needs_nothing_else(tmp_path: Path) -> None:
    """Its paths are relative to the working directory, and its checker is imported from there."""
    printed = init("--quickstart")
    assert printed.splitlines()[-2:] == ["  aligndistill plan quickstart.yaml", "  aligndistill run quickstart.yaml"]
    for path, relative in quickstart_files():
        assert (tmp_path / relative).read_bytes() == path.read_bytes()
    ended = ENDED.invoke(app, ["check", "quickstart.yaml"])
    assert ended.exit_code == 0, ended.output


def test_the_wheel_contains_what_init_copies() -> None:
    project = tomllib.loads((shipped() / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {
        part: f"aligndistill/shipped/{part}" for part in ("configs", "data/quickstart", "examples/quickstart", "launch")
    }
    assert all((shipped() / part).is_dir() for part in included)


def test_few_options_are_no_answers() -> None:
    with pytest.raises(ConfigError, match="init cannot ask here: give --student MODEL"):
        complete(Given(prompts="p.jsonl"), found_gpus=0, asks=False)


@pytest.mark.parametrize(("folder", "name"), [("my first run", "my-first-run"), ("läuft", "l-uft"), ("a_b.c", "a_b.c")])
def test_a_run_is_named_after_its_folder(folder: str, name: str, tmp_path: Path) -> None:
    init(f"in/{folder}", "--toy", "--student", "s", "--teacher", "t", "--gpus", "0", "--yes")
    assert load_config(tmp_path / "in" / folder / "config.yaml").name == name
