"""Writes the generated pages of the reference: `python -m website.reference`. A test compares them with what is committed.

Config keys come from the schema, with examples from the shipped configs; commands from the command line; records from their models.
"""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from typer.main import get_command

from aligndistill import records
from aligndistill.cli.app import app
from aligndistill.config.load import load_config
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import alternatives, kind_of, sections_in
from aligndistill.reporting.provenance import Provenance
from aligndistill.reporting.report import Report
from website.meanings import MEANINGS, RECORDS
from website.models import meanings, rows, summary, value_text

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/reference"
GENERATED = "<!-- Written by `python -m website.reference`. Change the source instead, and run it again. -->"


def nested(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models in a model's fields, with the way to them: `.key`, or `.key.NAME` in a mapping."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        yield from ((f".{key}{more}", one) for more, one in _models_in(field.annotation))


def _models_in(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    for choice in alternatives(annotation) or (annotation,):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            yield "", choice
            continue
        inner = getattr(choice, "__args__", ())
        named = (
            getattr(choice, "__origin__", None) is dict or getattr(getattr(choice, "__origin__", None), "__name__", "") == "Mapping"
        )
        for one in inner[1:] if named else inner:
            if one is not choice:
                yield from ((f".NAME{more}" if named else more, found) for more, found in _models_in(one))


def places_of(root: type[BaseModel]) -> dict[type[BaseModel], list[str]]:
    """Every model in a tree of models, in the order of reading, with the shortest ways to it."""
    found: dict[type[BaseModel], list[str]] = {root: [""]}
    waiting = [(root, "")]
    while waiting:
        model, place = waiting.pop(0)
        for more, one in nested(model):
            if one not in found:
                waiting.append((one, place + more))
            found.setdefault(one, [])
            if place + more not in found[one]:
                found[one].append(place + more)
    return found


def headings_of(places: dict[type[BaseModel], list[str]]) -> dict[type[BaseModel], str]:
    """A heading for each section: the shortest way to it, and its kind. In the order of the page."""
    keys = list(RunConfig.model_fields)
    shortest = {model: min(ways, key=lambda way: way.count(".")).removeprefix(".") for model, ways in places.items()}
    models = sorted(shortest, key=lambda model: keys.index(place.partition(".")[0]) if (place := shortest[model]) else -1)
    found: dict[type[BaseModel], str] = {}
    for model in models:
        kind = kind_of(model)
        chosen = kind is not None and kind != "local" and len(get_args(model.model_fields["kind"].annotation)) == 1
        heading = shortest[model] + (f": {kind}" if chosen else "")
        found[model] = heading if heading not in found.values() else f"{heading} ({model.__name__})"
    return found | {RunConfig: "The file"}


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub and the site spell it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def link(heading: str) -> str:
    """A link to a heading of the page."""
    return f"[{heading}](#{anchor(heading)})"


def examples() -> dict[tuple[type[BaseModel], str], str]:
    """A value that a shipped config gives to a key of a section."""
    found: dict[tuple[type[BaseModel], str], str] = {}
    first = ("one_gpu", "quickstart", "hh")
    for path in sorted((ROOT / "configs").glob("*.yaml"), key=lambda path: (path.stem not in first, path.stem)):
        for _, section in sections_in(load_config([path])):
            for name in section.model_fields_set:
                value = getattr(section, name, None)
                text = value_text(value)
                plain = isinstance(value, str | int | float | Path) or (
                    isinstance(value, tuple) and isinstance(value[0], str | int)
                )
                if plain and name != "kind" and len(text) < 60:
                    found.setdefault((type(section), name), text)
    return found


def config_page() -> str:
    """Every key of a config."""
    shown = examples()
    lines = [
        "# Config keys",
        "",
        GENERATED,
        "",
        "Every key of a run's YAML file. An example is a value of a shipped config (`configs/`). Keys of the same name as in "
        "Hugging Face's libraries mean the same. How a config is put together: [Running](../running.md#a-config-of-your-own). "
        "`aligndistill check CONFIG` finds every mistake in one.",
        "",
    ]
    places = places_of(RunConfig)
    headings = headings_of(places)
    for model, heading in headings.items():
        lines += [f"## {heading}", ""]
        lines += [explained, ""] if (explained := summary(model)) else []
        ways = sorted((way.removeprefix(".") for way in places[model]), key=lambda way: (way.count("."), len(way)))
        if len(ways) > 1:
            lines += ["Also " + ", ".join(f"`{way}`" for way in ways[1:4]) + (" and more." if len(ways) > 4 else "."), ""]

        def more(name: str, model: type[BaseModel] = model) -> str:
            example = shown.get((model, name))
            return f"{own_meaning(model, name)} {f'Example: `{example}`.' if example else ''}".strip()

        lines += [*rows(model, lambda one: link(headings[one]), True, more), ""]
    return "\n".join(lines).rstrip() + "\n"


def own_meaning(model: type[BaseModel], name: str, known: Mapping[str, str] = MEANINGS) -> str:
    """What `website/meanings.py` says of a key that no docstring explains."""
    return "" if meanings(model).get(name) else known.get(f"{model.__name__}.{name}", known.get(name, ""))


def undocumented() -> list[str]:
    """Keys of the config that no docstring and no entry of `MEANINGS` explains."""
    return sorted(
        f"{model.__name__}.{name}"
        for model in places_of(RunConfig)
        for name in model.model_fields
        if not meanings(model).get(name) and not own_meaning(model, name)
    )


def commands_page() -> str:
    """Every command with its arguments and options."""
    lines = [
        "# Commands",
        "",
        GENERATED,
        "",
        "`python -m aligndistill` is the same program. Exit codes are in [Running](../running.md#exit-codes).",
        "",
    ]
    for name, command in _commands(get_command(app), "aligndistill"):
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
        usage = [*(_shown(one) for one in arguments), *(["[OPTIONS]"] if options else [])]
        lines += [f"## {name}", "", " ".join((command.help or "").split()), "", "```text", " ".join([name, *usage]), "```", ""]
        lines += ["| argument or option | meaning | default |", "| --- | --- | --- |"] if arguments or options else []
        lines += [*map(_option_row, [*arguments, *options]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", {})
    for one in inner:
        yield from _commands(inner[one], f"{name} {one}")
    if not inner:
        yield name, command


def _shown(argument: Any) -> str:
    """An argument as the usage has it."""
    return str(argument.metavar or argument.name.upper() + ("..." if argument.nargs == -1 else ""))


def _option_row(option: Any) -> str:
    """A row of a command's table. Typer has its own copy of Click in newer versions, with the choices in another place."""
    names = "`, `".join(option.opts) if option.param_type_name == "option" else _shown(option)
    described = getattr(getattr(option, "type_descriptor", None), "annotation", None)
    literals = [value for choice in alternatives(described) or (described,) for value in get_args(choice)]
    choices = getattr(getattr(option, "type", None), "choices", None) or [one for one in literals if isinstance(one, str)]
    allowed = f"; one of {', '.join(f'`{one}`' for one in choices)}" if choices else ""
    help_text = " ".join((option.help or "").split())
    default = "required" if option.required else "" if option.default in (None, False, ()) else f"`{option.default}`"
    return f"| `{names}` | {help_text}{allowed} | {default} |"


def records_page() -> str:
    """What is stored and reported."""
    lines = [
        "# Records and report",
        "",
        GENERATED,
        "",
        "The fields of everything that a run writes as JSON. Which file holds what: [Formats](../formats.md#output-a-runs-folder).",
        "",
    ]
    stored = [
        one
        for _, one in inspect.getmembers(records, inspect.isclass)
        if issubclass(one, BaseModel) and one.__module__ == records.__name__ and one.model_fields
    ]
    stored.sort(key=lambda one: inspect.getsourcelines(one)[1])
    parts = (
        ("report.json", places_of(Report)),
        ("provenance.json", places_of(Provenance)),
        ("Lines of JSONL files", dict.fromkeys(stored)),
    )
    done: set[type[BaseModel]] = set()
    for heading, models in parts:
        lines += [f"## {heading}", ""]
        for model in (one for one in models if one not in done):
            done.add(model)
            lines += [f"### {model.__name__}", ""]
            lines += [explained, ""] if (explained := summary(model)) else []
            more = partial(own_meaning, model, known=RECORDS)
            lines += [*rows(model, lambda one: link(one.__name__), False, more), ""]
    return "\n".join(lines).rstrip() + "\n"


def keys_for_completion() -> str:
    """Which keys each section of a config has, and which sections these lead to, for the shell's completion.

    A target `*Student` is behind a name: `students.NAME`.
    """
    graph: dict[str, dict[str, list[str]]] = {}
    for model in places_of(RunConfig):
        keys = graph.setdefault(model.__name__, {field.alias or name: [] for name, field in model.model_fields.items()})
        for more, one in nested(model):
            key, _, named = more.removeprefix(".").partition(".")
            keys[key] = sorted({*keys[key], f"*{one.__name__}" if named else one.__name__})
    return json.dumps(graph, separators=(",", ":")).replace('},"', '},\n"') + "\n"


COMPLETED_KEYS = ROOT / "aligndistill/commands/config_keys.json"
PAGES = {"config.md": config_page, "commands.md": commands_page, "records.md": records_page}


def main() -> None:
    """Write the pages, and the keys that a shell completes."""
    COMPLETED_KEYS.write_text(keys_for_completion(), encoding="utf-8")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
