"""What a shell completes: folders of runs, models, stages, config files and keys. Looks at small files alone, to be quick."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from aligndistill.models.folder import read_json
from aligndistill.store.run_folder import ARTIFACTS

MOST_LISTED = 200
PLAN, CONFIG = "plan.json", "config.yaml"
KEYS = Path(__file__).with_name("config_keys.json")
"""Which keys each section has, and to which sections they lead; behind a name if that has a star. Written by
`python -m website.reference`, since importing the schema takes longer than completing may."""


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
        names |= dict.fromkeys(stage["name"] for stage in read_json(plan).get("stages", []))
    return [name for name in names if name.startswith(incomplete)]


def config_arguments(incomplete: str) -> list[str]:
    """Config files and folders that begin like this, and the keys of overrides."""
    folder, slash, start = incomplete.rpartition("/")
    with suppress(OSError):
        files = sorted(one for one in Path(folder + slash or ".").iterdir() if one.suffix in (".yaml", ".yml"))
        found = [f"{folder}{slash}{one.name}" for one in files if one.name.startswith(start) and one.name[0] != "."]
        return [*found[:MOST_LISTED], *_folders(incomplete), *(config_keys(incomplete) if incomplete and not slash else [])]
    return []


def config_keys(incomplete: str) -> list[str]:
    """Keys of a config that begin like this: `prompts.` is a section, `seed=` a value. Names, as of students, are not completed.

    Where one section is left, its keys are listed: a shell writes a space behind what is the only one.
    """
    place, dot, start = incomplete.rpartition(".")
    found = _keys_at(place.split(".") if dot else [], start)
    while len(found) == 1 and found[0].endswith(".") and (deeper := _keys_at(found[0].split(".")[:-1], "")):
        found = deeper
    return found


def _keys_at(place: list[str], start: str) -> list[str]:
    graph = read_json(KEYS)
    at = {"RunConfig"} if graph else set()
    for part in place:
        at = {to for one in at for to in ([one[1:]] if one[0] == "*" else graph[one].get(part, []))}
    keys = {key: leads_to for one in at if one[0] != "*" for key, leads_to in graph[one].items() if key.startswith(start)}
    return [".".join([*place, key]) + ("." if leads_to else "=") for key, leads_to in sorted(keys.items())]


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
    stages = read_json(run / ARTIFACTS)
    students = [name.removeprefix("student-") for name in stages if name.startswith("student-")]
    return [*students, *(name for name in ("start", "teacher") if name in stages)]
