"""What the architecture promises: imports point one way, files have one subject, and asking for help costs nothing."""

import ast
import importlib
import pkgutil
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import aligndistill

PACKAGE = Path(aligndistill.__file__).parent

# Each room and the rooms it may import. What is not named, a room may not see; `test_the_order_has_no_way_back` holds the rest.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "records": set(),
    "redaction": set(),
    "progress": set(),
    "stopping": set(),
    "objectives": set(),
    "config_section": set(),
    "config_models": {"config_section", "redaction"},
    "config_audit": {"config_models"},
    "config_judges": {"config_models"},
    "config_objectives": {"config_judges", "config_models"},
    "config": {"config_audit", "config_judges", "config_models", "config_objectives"},
    "config_problems": {"config", "redaction"},
    "config_yaml": {"config_problems"},
    "config_checks": {"config", "config_judges", "config_problems"},
    "config_files": {"config", "config_checks", "config_problems", "config_yaml", "errors", "redaction"},
    "plugins": {"errors"},
    "store": {"errors"},
    "smallworld": {"errors"},
    "prompts": {"config", "errors", "records"},
    "models": {"config", "errors", "records"},
    "chat": {"config", "errors", "models", "records"},
    "judges": {"chat", "errors", "models", "preferences", "records", "store"},
    "preferences": {"config", "errors", "records"},
    "training": {"config", "errors", "models", "objectives", "progress", "records", "stopping", "store"},
    "evaluation": {"errors", "records"},
    "reporting": {"errors", "evaluation", "preferences", "records"},
    "stages": {
        *(
            "chat",
            "config",
            "config_audit",
            "config_judges",
            "errors",
            "evaluation",
            "judges",
            "models",
            "plugins",
            "preferences",
            "progress",
            "prompts",
        ),
        *("records", "reporting", "store", "training"),
    },
    "pipeline": {"config", "config_audit", "config_files", "config_judges", "config_yaml", "plugins", "stages", "store"},
    "endpoints": {"chat", "config", "store"},
    "launching": {"config", "config_files", "errors"},
    "runs": {"config", "config_files", "endpoints", "errors", "launching", "pipeline", "progress", "stages", "store", "training"},
    "plans": {"chat", "config", "endpoints", "errors", "pipeline", "prompts", "records", "stages", "store"},
    "judging": {
        *("chat", "config", "config_audit", "config_files", "config_judges", "errors", "pipeline", "preferences", "prompts"),
        *("records", "runs", "stages", "store"),
    },
    "reward_benchmark": {"config", "errors", "evaluation", "models", "progress", "prompts", "records"},
    "doctor": {"chat", "config", "config_judges", "errors", "records", "store", "training"},
    "cli": {
        *("config", "config_files", "doctor", "errors", "judging", "pipeline", "plans", "reporting", "runs", "stopping", "store"),
        *("reward_benchmark", "training"),
    },
    "__main__": {"cli"},
}
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "managers", "base", "core"}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module by its dotted name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names) if node.module == "aligndistill" else (node.module,)


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_imports_only_what_it_may() -> None:
    found: dict[str, set[str]] = {}
    for module, path in modules():
        if module == "aligndistill":
            assert not list(imports(path))
            continue
        of_ours = {room(name) for name in imports(path) if name.startswith("aligndistill.")}
        found.setdefault(room(module), set()).update(of_ours - {room(module)})
    assert found.keys() == MAY_IMPORT.keys(), "a room that is new, or gone, changes the picture"
    for name, rooms in found.items():
        assert rooms <= MAY_IMPORT[name], f"{name} imports {rooms - MAY_IMPORT[name]}"


def test_the_order_has_no_way_back() -> None:
    seen: set[str] = set()
    waiting = dict(MAY_IMPORT)
    while waiting:
        free = {name for name, needed in waiting.items() if needed <= seen}
        assert free, f"these import each other: {sorted(waiting)}"
        seen |= free
        waiting = {name: needed for name, needed in waiting.items() if name not in free}


def test_objectives_are_torch_and_nothing_else() -> None:
    for path in (PACKAGE / "objectives").glob("*.py"):
        for name in imports(path):
            assert name.split(".")[0] in {"torch", *sys.stdlib_module_names} or name.startswith("aligndistill.objectives"), (
                f"{path.name} imports {name}"
            )


def test_only_stages_and_what_runs_them_know_the_store_and_the_rooms_together() -> None:
    """A room that reads artifacts by itself would know where another room wrote."""
    for name in ("prompts", "chat", "preferences", "objectives", "models", "evaluation", "reporting"):
        assert "store" not in MAY_IMPORT[name]


def test_names_say_what_a_file_is_about() -> None:
    for module, path in modules():
        assert not VAGUE_NAMES & set(module.split(".")), module
        assert len(path.read_text().splitlines()) <= 500, f"{module} is about more than one thing"


@pytest.mark.parametrize("module", sorted(name for _, name, _ in pkgutil.walk_packages([str(PACKAGE)], "aligndistill.")))
def test_every_module_can_be_imported(module: str) -> None:
    if not module.endswith("__main__"):
        importlib.import_module(module)


def test_help_costs_nothing() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    asked = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "aligndistill", "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "run" in asked.stdout
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in asked.stderr.splitlines() if "|" in line}
    assert "typer" in imported
    assert not imported & {"torch", "transformers", "datasets", "trl", "deepspeed", "numpy", "pydantic"}
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 2
