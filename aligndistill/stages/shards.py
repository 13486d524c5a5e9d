"""Where each process of a run writes its part of what is shared out, so that no two write to one file."""

from pathlib import Path

from aligndistill.processes.ranks import process_rank


def shard(path: Path) -> Path:
    """This process's file: the first one's is the path itself, so that a run with one process reads as it always did."""
    return path if process_rank() == 0 else path.with_name(f"{path.stem}.part-{process_rank()}{path.suffix}")


def shards(path: Path) -> list[Path]:
    """Every process's file, those of an earlier run with more processes included."""
    return [file for file in (path, *sorted(path.parent.glob(f"{path.stem}.part-*{path.suffix}"))) if file.is_file()]
