"""What a shell completes: folders of runs, `RUN:STUDENT`, and names of stages. Looks at small files alone, so that it is quick."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from aligndistill.store.run_folder import ARTIFACTS

MOST_LISTED = 200
PLAN, CONFIG = "plan.json", "config.yaml"


def run_folders(incomplete: str) -> list[str]:
    """Folders that begin like this: runs, and others in which runs may be, with a slash."""
    return list(_folders(incomplete))


def run_models(incomplete: str) -> list[str]:
    """The same, and the models of a run whose folder is complete: `runs/quickstart:dpo`."""
    run, colon, name = incomplete.rpartition(":")
    if colon:
        return [f"{run}:{model}" for model in _models(Path(run)) if model.startswith(name)]
    found = list(_folders(incomplete))
    return [one for folder in found for one in ([folder, *(f"{folder}:{model}" for model in _models(Path(folder)))])][:MOST_LISTED]


def stage_names(incomplete: str) -> list[str]:
    """The stages of the runs here."""
    names: dict[str, None] = {"students": None, "answers": None}
    for plan in sorted(Path("runs").glob(f"*/{PLAN}"))[:MOST_LISTED]:
        names |= dict.fromkeys(stage["name"] for stage in _read(plan).get("stages", []))
    return [name for name in names if name.startswith(incomplete)]


def _folders(incomplete: str) -> Iterator[str]:
    folder, slash, start = incomplete.rpartition("/")
    base = Path(folder + slash) if slash else Path()
    with suppress(OSError):
        children = sorted(one for one in base.iterdir() if one.is_dir() and one.name.startswith(start) and one.name[0] != ".")
        for child in children[:MOST_LISTED]:
            yield f"{folder}{slash}{child.name}" + ("" if _is_run(child) else "/")


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in (PLAN, ARTIFACTS))


def _models(run: Path) -> list[str]:
    """The models of a run that may run here, students first."""
    stages = _read(run / ARTIFACTS)
    students = [name.removeprefix("student-") for name in stages if name.startswith("student-")]
    return [*students, *(name for name in ("start", "teacher") if name in stages)]


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
