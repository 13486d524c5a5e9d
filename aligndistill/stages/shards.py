"""The file of each process for its share of the work, so that no two processes write to one file."""

from pathlib import Path

from aligndistill.processes.ranks import process_rank


def shard(path: Path) -> Path:
    """This process's file. The main process uses the path itself, as a run with one process does."""
    return path if process_rank() == 0 else path.with_name(f"{path.stem}.part-{process_rank()}{path.suffix}")


def shards(path: Path) -> list[Path]:
    """The files of all processes, including those of an earlier run with more processes."""
    return [file for file in (path, *sorted(path.parent.glob(f"{path.stem}.part-*{path.suffix}"))) if file.is_file()]
