"""The list of finished stages in the folder of a run, and how one of its models is named."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from aligndistill.errors import DataError

ARTIFACTS = "artifacts.json"
OF_ROUND = r"(?:-r(\d+))?"
"""What the name of a stage ends in that belongs to a round after the first."""
REPEATED = r"candidates|verdicts|second_verdicts|audit|rankings|reward_model(-s\d+)?"
"""The stages of the first round that every later one repeats, and that its students or the report read."""


def finished_stages(run_folder: Path) -> dict[str, Path]:
    """The absolute folder of each finished stage of a run, by the stage's name.

    Paths in a run's folder are relative to where the run was started: the working directory, or a parent folder of the run's.

    Raises:
        DataError: there is no run, or its stages do not exist.
    """
    folders = _folders(run_folder)
    bases = (Path.cwd(), *run_folder.absolute().parents)
    for base in bases:
        found = {name: base / folder for name, folder in folders.items()}
        if all(folder.is_dir() for folder in found.values()):
            return found
    gone = next(folder for folder in folders.values() if not Path(folder).is_dir())
    raise DataError(
        f"{gone} does not exist (searched from {bases[0]} and from the parent folders of {run_folder}). "
        "Change to the folder where the run was started, or run its config again."
    )


def of_rounds(folders: Mapping[str, Path], name: str) -> dict[int, Path]:
    """A stage's folder in each round that has finished it, by the round's number, in order: `NAME`, `NAME-r2` ...

    Args:
        folders: of the finished stages of a run, by name.
    """
    found = ((re.fullmatch(re.escape(name) + OF_ROUND, stage), folder) for stage, folder in folders.items())
    return dict(sorted((int(match[1] or 1), folder) for match, folder in found if match))


def last_round(folders: Mapping[str, Path]) -> dict[str, Path]:
    """The stages of the last round that has finished what the first has, each under its name in the first; the report shows that
    round. Without rounds, the stages themselves.

    Args:
        folders: of the finished stages of a run, by name.
    """
    repeated = {name: of_rounds(folders, name) for name in folders if re.fullmatch(REPEATED, name)}
    finished = [set(rounds) for rounds in repeated.values()]
    last = max(set.intersection(*finished), default=1) if finished else 1
    return {**folders, **{name: rounds[last] for name, rounds in repeated.items()}}


def judged_stages(run_folder: Path) -> dict[str, Path]:
    """The same of a run that has verdicts or rankings.

    Raises:
        DataError: there is no run, its stages do not exist, or it has no verdicts yet.
    """
    if not (run_folder / ARTIFACTS).is_file():
        raise DataError(
            f"{run_folder} is neither a run's folder nor a file. Give the folder of a run, such as runs/quickstart, "
            "or a file of recorded verdicts."
        )
    found = finished_stages(run_folder)
    if not {"verdicts", "rankings"} & found.keys():
        raise DataError(f"{run_folder}: this run has no verdicts yet. Run it at least `--until verdicts`.")
    return found


def finished_stage(run_folder: Path, name: str) -> Path | None:
    """The absolute folder of one finished stage, whether or not the others exist; None if there is none.

    Raises:
        DataError: there is no run.
    """
    folder = _folders(run_folder).get(name)
    if folder is None:
        return None
    bases = (Path.cwd(), *run_folder.absolute().parents)
    return next((base / folder for base in bases if (base / folder).is_dir()), None)


def _folders(run_folder: Path) -> dict[str, str]:
    try:
        folders: dict[str, str] = json.loads((run_folder / ARTIFACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            f"{run_folder}: no readable {ARTIFACTS} found. Give the folder of a run, such as runs/quickstart."
        ) from None
    return folders


def split_name(text: str) -> tuple[Path, str | None]:
    """`RUN:MODEL` or `RUN`; a folder whose name has a colon is a run."""
    if Path(text).is_dir():
        return Path(text), None
    run, _, model = text.rpartition(":")
    return (Path(run), model or None) if run else (Path(text), None)
