"""What pages show works: YAML loads, commands can be parsed, and cheap ones are run and print what the page says."""

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.main import get_command

import aligndistill
from aligndistill.cli.app import app
from aligndistill.config.arguments import files_and_overrides
from aligndistill.config.load import load_config
from aligndistill.errors import ConfigError
from tests.docs.blocks import CHECKED, PAGES, ROOT, Block, blocks, commands, counts

if TYPE_CHECKING:
    from tests.e2e.command import ForkServer

# What a part of a config is put on: nothing but a name, runs with a local teacher, one of them with
# the start's tokenizer, one with a server, one without a judge.
BASES = (
    "name: page",
    "name: page\nprompts: {source: {path: prompts.jsonl}}\njudge: {kind: likelihood, model: teacher}",
    *((ROOT / f"configs/{name}.yaml").read_text() for name in ("quickstart", "quickstart-distil", "hh", "one_gpu", "zephyr_dpo")),
)


def found(language: str) -> list[Any]:
    """A parameter for every block of a language."""
    return [
        pytest.param(page, block, id=f"{page.relative_to(ROOT)}:{block.line}")
        for page in PAGES
        for block in blocks(page)
        if block.language == language and block.mark != "not checked"
    ]


def loads(text: str, folder: Path) -> list[str]:
    """Why a block is not a config, and no part of one on any base; empty if it is."""
    base, block = folder / "base.yaml", folder / "block.yaml"
    block.write_text(text)
    whole = {"name", "start", "students"} <= set(yaml.safe_load(text))
    problems = []
    for one in BASES[:1] if whole else BASES:
        base.write_text(one)
        try:
            load_config([base, block], ["runtime.deepspeed=null"])
        except ConfigError as error:
            problems.append(str(error))
        else:
            return []
    return problems


@pytest.mark.parametrize(("page", "block"), found("yaml"))
def test_yaml_is_what_a_config_may_say(page: Path, block: Block, tmp_path: Path) -> None:
    assert loads(block.text, tmp_path) == []


def test_a_misspelt_key_is_no_config(tmp_path: Path) -> None:
    assert len(loads("students: {dpo: {objective: {kind: dpo, betta: 0.1}}}", tmp_path)) == len(BASES)


@pytest.mark.parametrize(("page", "block"), found("python"))
def test_python_can_be_parsed_and_takes_what_the_package_has(page: Path, block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ad":
            assert hasattr(aligndistill, node.attr)


@pytest.mark.parametrize(("page", "block"), found("json"))
def test_json_can_be_read_whole_or_line_by_line(page: Path, block: Block) -> None:
    try:
        json.loads(block.text)
    except json.JSONDecodeError:
        assert [json.loads(line) for line in block.text.splitlines()]


def test_every_block_is_read_by_a_test_or_is_an_output() -> None:
    assert {name.split()[0] for name in counts()} == {*CHECKED, "plain", "text"}
    languages = ("bash", "console", "json", "python", "yaml")
    assert sum(len(found(one)) for one in languages) == sum(
        count for name, count in counts().items() if name.split()[1] in ("checked", "run")
    )


def parse(arguments: list[str]) -> None:
    """Parse a command as the command line does, without running it."""
    command: Any = get_command(app)
    name = "aligndistill"
    while hasattr(command, "commands"):
        if arguments[:1] in (["--version"], ["--help"]):
            return
        name, *arguments = arguments
        command = command.commands[name]
    if "--help" not in arguments:
        command.make_context(name, list(arguments))


@pytest.mark.parametrize(("page", "block"), [*found("bash"), *found("console")])
def test_commands_are_those_of_the_command_line(page: Path, block: Block) -> None:
    for arguments in commands(block):
        parse(arguments)
        if arguments[0] in ("run", "check", "plan", "doctor"):
            words = [word for word in arguments[1:] if not word.startswith("-")]
            files = [ROOT / word for word in words if word.endswith(".yaml")]
            filled = not any(re.search(r"=[A-Z]+$", word) for word in words)
            if files and filled and all(file.is_file() for file in files) and "--chain" not in arguments:
                load_config(*files_and_overrides([word for word in words if word.endswith(".yaml") or "=" in word]))


def test_an_unknown_option_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(["run", "x.yaml", "--untill", "rankings"])


# ------------------------------------------------------------------------------------------------------- commands that are run


def expected(block: Block) -> list[tuple[list[str], str]]:
    """The commands of a block with the output that the page shows below each."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    return [(part.splitlines()[0].split(), "\n".join(part.splitlines()[1:])) for part in parts]


def matches(shown: str, printed: str) -> bool:
    """Whether an output is the one shown, where `...` is any text."""
    normal = "\n".join(" ".join(line.split()) for line in printed.splitlines()).strip()
    pieces = [re.escape("\n".join(" ".join(line.split()) for line in piece.strip().splitlines())) for piece in shown.split("...")]
    return re.fullmatch(r"(?s:.*)".join(rf"\s*{piece}\s*" for piece in pieces), normal) is not None


def test_wildcards() -> None:
    assert matches("one\n...", "one\ntwo\nthree")
    assert matches("a  b ...\nc", "a b 3.4 s\nc\n")
    assert not matches("one\n...\nfour", "one\ntwo\nthree")
    assert not matches("one", "one\ntwo")


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.mark == "run" for block in blocks(page))], ids=str)
def test_marked_commands_print_what_the_page_shows(page: Path, forked: "ForkServer", tmp_path: Path) -> None:
    """Of a page's blocks with the mark `run`, in order, in one empty folder. What the mark says is added to the commands."""
    for block in blocks(page):
        for words, shown in expected(block) if block.mark == "run" else ():
            assert words[0] == "aligndistill"
            ended = forked.run(tmp_path, *words[1:], *block.said.split())
            assert ended.code == 0, ended.errors
            assert matches(shown, ended.output), f"{' '.join(words)} printed\n{ended.output}"
