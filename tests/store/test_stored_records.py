from pathlib import Path

import pytest

from aligndistill.errors import DataError
from aligndistill.records import Message
from aligndistill.store.jsonl import write_jsonl
from aligndistill.store.stored_records import Lines, StoredRecords

FIRST = [Message(role="user", content="a ä"), Message(role="system", content="not wanted"), Message(role="user", content="b")]
SECOND = [Message(role="assistant", content="c"), Message(role="assistant", content="a ä")]


def by_text(message: Message) -> str | None:
    return None if message.role == "system" else message.content


def files(folder: Path) -> list[Path]:
    paths = [folder / "first.jsonl", folder / "second.jsonl"]
    for path, messages in zip(paths, (FIRST, SECOND), strict=True):
        write_jsonl(path, messages)
    return paths


def test_it_is_what_a_dictionary_of_the_records_would_be(tmp_path: Path) -> None:
    stored = StoredRecords(files(tmp_path), Message, by_text)
    expected = {key: one for one in (*FIRST, *SECOND) if (key := by_text(one)) is not None}
    assert list(stored.items()) == list(expected.items())
    assert stored["a ä"].role == "assistant"
    assert len(stored) == 3
    assert "b" in stored
    assert "not wanted" not in stored
    assert stored.get("d") is None


def test_a_record_can_be_read_while_others_are(tmp_path: Path) -> None:
    lines = Lines(files(tmp_path)[0], Message)
    for place, message in lines:
        assert lines.at(place) == message


def test_a_damaged_line_is_named_by_its_number_or_its_place(tmp_path: Path) -> None:
    path = files(tmp_path)[0]
    stored = StoredRecords([path], Message, by_text)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"b"', b"bad"))
    with pytest.raises(DataError, match=rf"first\.jsonl:byte {content.rindex(b'{')}: this line is damaged"):
        stored["b"]
    with pytest.raises(DataError, match=r"first\.jsonl:3: this line is damaged"):
        StoredRecords([path], Message, by_text)
