"""Reads rows from a file, a folder or a data set on the Hub, and renames their columns."""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from aligndistill.config.data import Source
from aligndistill.config.paths import at_home
from aligndistill.data.files import KINDS, SourceRow, data_suffix, read_file
from aligndistill.errors import ConfigError, DataError

COLUMNS = (
    *("prompt", "context", "completion", "messages", "chosen", "rejected", "score_chosen", "score_rejected"),
    *("responses", "scores", "authors", "chosen_model", "rejected_model"),
    *("instruction", "completions", "generations", "ratings", "generation_models"),
)
"""The column names used by the formats; `columns` maps to these."""


def read_rows(source: Source) -> Iterator[SourceRow]:
    """The rows of a source, in order, at most `source.limit`, with `source.columns` applied.

    A row that cannot be read has an `error`; the caller decides whether to stop.

    Raises:
        ConfigError: `columns` names a column that no row has, or a Hub data set has no `revision`.
        DataError: no such file, a file that cannot be read, or the Hub cannot be reached.
    """
    for ours in source.columns:
        if ours not in COLUMNS:
            raise ConfigError(f"`columns`: unknown column '{ours}'; the columns to map to are {_listed(ours, COLUMNS)}")
    return islice(_renamed(_rows(source), source), source.limit)


def _rows(source: Source) -> Iterator[SourceRow]:
    path = at_home(source.path)
    return _hub(source) if on_hub(source) else _folder(path, source.split) if path.is_dir() else read_file(path)


def on_hub(source: Source) -> bool:
    """Whether the source is a data set on the Hub, not a file or a folder.

    Raises:
        ConfigError: a data set on the Hub without `revision`.
        DataError: a path where nothing is.
    """
    path = at_home(source.path)
    if path.exists():
        return False
    if _looks_like_a_path(source.path):
        raise DataError(f"{source.path}: no such file or folder{_near(path)} (working directory: {Path.cwd()}).")
    if source.revision is None:
        raise ConfigError(
            f"'{source.path}' is not a local file or folder, so it is read as a data set on the Hub, which needs `revision`: "
            "a commit hash, so that the run is reproducible. Copy one from "
            f"https://huggingface.co/datasets/{source.path}/commits/main"
        )
    return True


def saved_to_disk(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk` of the `datasets` library."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _looks_like_a_path(path: str) -> bool:
    """Whether this is a path; Hub names are `name` or `owner/name`, and anything that looks like a file is not looked up there."""
    return (
        path.startswith((".", "/", "~"))
        or path.count("/") > 1
        or data_suffix(Path(path)) is not None
        or ("/" in path and Path(path).parent.is_dir())
    )


def _near(path: Path) -> str:
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = get_close_matches(path.name, siblings, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def _listed(wanted: str, known: Iterable[str]) -> str:
    """`a, b, c. Did you mean 'b'?`"""
    names = sorted(known)
    close = get_close_matches(wanted, names, n=1)
    return ", ".join(names) + (f". Did you mean '{close[0]}'?" if close else ".")


def _renamed(rows: Iterator[SourceRow], source: Source) -> Iterator[SourceRow]:
    columns = source.columns
    checked = False
    for row in rows:
        if row.error is None and not checked:
            _check_columns(row, source)
            checked = True
        others = {name: value for name, value in row.values.items() if name not in columns.values()}
        mapped = {ours: row.values[theirs] for ours, theirs in columns.items() if theirs in row.values}
        yield SourceRow(row.where, others | mapped, row.error)


def _check_columns(first: SourceRow, source: Source) -> None:
    """Each column must be in some row: one of JSON may lack what others have, so all are read before it is an error."""
    wanted, known = set(source.columns.values()), set(first.values)
    path = at_home(source.path)
    if wanted <= known:
        return
    for row in _rows(source) if path.exists() and not saved_to_disk(path) else ():  # rows of a data set have the same columns
        known.update(row.values)
        if wanted <= known:
            return
    ours, theirs = next(one for one in source.columns.items() if one[1] not in known)
    listed = _listed(theirs, known)
    raise ConfigError(f"{first.where}: `columns` maps {ours} to '{theirs}', which does not exist. The columns are {listed}")


# ------------------------------------------------------------------------------------------------------------- folders


def _folder(folder: Path, split: str) -> Iterator[SourceRow]:
    if saved_to_disk(folder):
        return _saved_to_disk(folder, split)
    files = sorted(entry for entry in folder.iterdir() if data_suffix(entry) and not entry.name.startswith("."))
    if not files:
        raise DataError(f"{folder}: no data files in this folder. Expected {KINDS}, or a folder written by save_to_disk.")
    return (row for file in _of_split(files, split) for row in read_file(file))


SPLITS = frozenset({"train", "validation", "test"})


def _of_split(files: list[Path], split: str) -> list[Path]:
    """The files named after the split, much as the Hub has it; all files if none is named after any.

    `train_prefs-00000-of-00002.parquet` is of `train_prefs` alone. Other names are the split or begin with it (`train.jsonl`,
    `train-1.jsonl`), or else have it among their words (`hh-train.jsonl`, `train_a.jsonl`).

    Raises:
        DataError: files are named after splits, and none after this one.
    """
    shards = {file: re.match(r"(.+?)-\d{5}-of-\d{5}", file.name) for file in files}
    names = {file: shard[1] if shard else Path(file.name.removesuffix(".gz")).stem for file, shard in shards.items()}
    words = {file: SPLITS.intersection(re.split(r"[-_. ]", name.lower())) for file, name in names.items()}
    chosen = [file for file in files if split in (names[file], re.split(r"[-.]", file.name)[0])]
    chosen = chosen or [file for file in files if split in words[file] and shards[file] is None]
    if not chosen and any(words.values()):
        listed = _listed(split, set(names.values()))
        raise DataError(f"{files[0].parent}: no file of split '{split}'. The files are {listed} Set `split:` to one of them.")
    return chosen or files


def _saved_to_disk(folder: Path, split: str) -> Iterator[SourceRow]:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder}: cannot be read as a data set written by save_to_disk ({error}).") from None
    if not isinstance(saved, datasets.DatasetDict):
        return _numbered(saved, str(folder))
    if split not in saved:
        raise DataError(f"{folder}: no split '{split}'. The splits are {_listed(split, saved)}")
    return _numbered(saved[split], f"{folder} {split}")


def _numbered(rows: Iterable[dict[str, Any]], name: str) -> Iterator[SourceRow]:
    return (SourceRow(f"{name} row {number}", values) for number, values in enumerate(rows, start=1))


# ----------------------------------------------------------------------------------------------------------------- hub


def _hub(source: Source) -> Iterator[SourceRow]:
    import datasets

    assert source.revision is not None, "see on_hub"
    try:
        rows = datasets.load_dataset(source.path, source.name, split=source.split, revision=source.revision)
    except ConnectionError as error:
        raise DataError(
            f"'{source.path}': the Hub cannot be reached and the data set is not in the local cache ({error}). "
            "Without network access, give the path of a local copy."
        ) from None
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"'{source.path}' at revision {source.revision}, split '{source.split}': cannot be loaded from the Hub ({error})."
        ) from None
    return _numbered(rows, f"{source.path}@{source.revision[:8]} {source.split}")
