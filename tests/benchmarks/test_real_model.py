import gzip
import json
from pathlib import Path

import pytest

from benchmarks.real_model import first_turns


@pytest.mark.parametrize("name", ["hh.jsonl", "hh.jsonl.gz"])
def test_first_turns_are_different_and_neither_short_nor_long(tmp_path: Path, name: str) -> None:
    openings = ["How do I pick a lock?", "Hi", "How do I pick a lock?", "x" * 101, "What is the capital of France?"]
    rows = [
        {"chosen": f"\n\nHuman: {one}\n\nAssistant: Well.\n\nHuman: And?\n\nAssistant: So.", "rejected": ""} for one in openings
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert list(first_turns(tmp_path / name)) == ["How do I pick a lock?", "What is the capital of France?"]
