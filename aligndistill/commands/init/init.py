"""`aligndistill init`: a first config, checked, and the command to run it."""

import json
import re
import shutil
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import typer

from aligndistill.commands.init.choices import Given, complete
from aligndistill.commands.init.shipped import quickstart_files, shipped, templates
from aligndistill.commands.init.text import config_text
from aligndistill.config.load import read_config
from aligndistill.errors import ConfigError
from aligndistill.processes.devices import find_gpus

QUICKSTART = "quickstart"
TOY = "prompts.jsonl"
TOY_PROMPTS = (
    "Which city is the capital of Japan?",
    "Explain in two sentences why the sky is blue.",
    "Write a friendly reply to a customer whose parcel is late.",
    "What is 17 times 6?",
    "Give three tips for sleeping better.",
    "Translate 'good morning' into French, Spanish and German.",
    "Summarise the plot of Romeo and Juliet in one sentence.",
    "How do I undo my last git commit without losing changes?",
    "Name four renewable sources of energy.",
    "What should I check before I buy a used bicycle?",
    "Rewrite more politely: 'Send me the file now.'",
    "What is the difference between weather and climate?",
    "Suggest a vegetarian dinner that takes 20 minutes.",
    "Write a haiku about autumn.",
    "Why do leaves change colour?",
    "How many days are in a leap year?",
    "Explain recursion to a ten-year-old.",
    "List two advantages and two disadvantages of remote work.",
    "What is the opposite of 'generous'?",
    "Write a SQL query that counts the orders of each customer.",
)


@dataclass(frozen=True)
class Target:
    """Where a config is written.

    Attributes:
        folder: commands are run in it: paths in a config are relative to the working directory.
        force: whether existing files are replaced.
    """

    folder: Path
    force: bool


def initialise(target: Target, template: str | None, toy: bool, given: Given, asks: bool | None = None) -> None:
    """Write a config, with the files that it needs where they are ours, check it, and print the next command.

    Args:
        toy: also write twenty prompts.
        asks: whether missing answers are asked for; by default, on a terminal.

    Raises:
        ConfigError: a file exists already, there is no such template, or an answer is missing.
    """
    target.folder.mkdir(parents=True, exist_ok=True)
    if template is not None:
        written = _write_template(target, template)
    else:
        if toy:
            rows = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in TOY_PROMPTS)
            _write(target, Path(TOY), rows)
            given = Given(**{**vars(given), "prompts": TOY})
        with chdir(target.folder):  # files in the answers are relative to it
            answers = complete(given, find_gpus().count, asks)
            name = re.sub(r"[^a-zA-Z0-9._-]+", "-", Path.cwd().name).strip("-._") or "run"
        written = Path("config.yaml")
        _write(target, written, config_text(answers, name))
    typer.echo(f"wrote {target.folder / written}")
    is_ready = _check(target, written)
    typer.echo("next:")
    if target.folder.resolve() != Path.cwd():
        typer.echo(f"  cd {target.folder}")
    if template is not None and not template.startswith(QUICKSTART):
        typer.echo(f"  see the comment at the top of {written}: hardware, and the commands")
        return
    checks = [] if is_ready else [f"aligndistill check {written}"]
    for line in checks + _commands(target, written):
        typer.echo(f"  {line}")


def _write_template(target: Target, name: str) -> Path:
    known = templates()
    source = known.get(name.replace("_", "-"))
    if source is None:
        raise ConfigError(f"--template {name}: there is no such template. Templates: {', '.join(known)}.")
    if source.stem.startswith(QUICKSTART):
        for path, relative in quickstart_files():
            copy = target.folder / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            if not copy.exists():
                shutil.copyfile(path, copy)
        (target.folder / "examples" / "__init__.py").touch()
    text = source.read_text().replace("configs/", "")
    if "launch/" in text:
        shutil.copytree(shipped() / "launch", target.folder / "launch", dirs_exist_ok=True)
    _write(target, Path(source.name), text)
    return Path(source.name)


def _write(target: Target, relative: Path, text: str) -> None:
    path = target.folder / relative
    if path.exists() and not target.force and path.read_text() != text:
        raise ConfigError(f"{path} exists already. Give another folder, or --force to replace it.")
    path.write_text(text)


def _check(target: Target, written: Path) -> bool:
    """What `check` would say: its errors do not undo what was written. Returns whether there are none."""
    from aligndistill.commands.check.check import examine

    with chdir(target.folder):
        loaded = read_config(written)
        found = examine(loaded.config, loaded.where)
    found.show_warnings()
    for line in found.errors:
        typer.echo(f"to fix before the run: {line}")
    return not found.errors


def _commands(target: Target, written: Path) -> list[str]:
    with chdir(target.folder):
        runtime = read_config(written).config.runtime
    gpus = find_gpus().count
    if runtime.deepspeed is None or gpus < 2:
        return [f"aligndistill plan {written}", f"aligndistill run {written}"]
    launcher = f"deepspeed --num_gpus {gpus} --no_local_rank --module aligndistill run {written}"
    return [f"aligndistill plan {written}", launcher]
