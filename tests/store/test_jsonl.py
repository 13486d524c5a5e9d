from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from aligndistill.errors import DataError
from aligndistill.records import Comparison, Grade, Message, Verdict
from aligndistill.store.jsonl import Appender, raw_lines, read_growing, read_jsonl, read_union, write_jsonl

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
MESSAGES = st.lists(st.builds(Message, role=st.sampled_from(["user", "assistant"]), content=TEXT), max_size=5)


@given(MESSAGES)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path: Path, messages: list[Message]) -> None:
    path = tmp_path / "messages.jsonl"
    assert write_jsonl(path, messages) == len(messages)
    assert list(read_jsonl(path, Message)) == messages
    assert not list(tmp_path.glob("*.partial"))


@given(st.lists(st.builds(Message, role=st.just("user"), content=TEXT), min_size=1, max_size=4), st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_file_keeps_its_whole_lines_and_is_appended_to(tmp_path: Path, messages: list[Message], data: st.DataObject) -> None:
    """Whatever byte a kill stopped at."""
    path = tmp_path / "messages.jsonl"
    path.unlink(missing_ok=True)
    with Appender(path) as appender:
        appender.add(messages)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    with Appender(path) as appender:
        assert list(read_jsonl(path, Message)) == messages[:kept]
        appender.add(messages[kept:])
    assert path.read_bytes() == whole


def test_a_torn_line_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    long = Message(role="user", content="x" * 200_000)
    with Appender(path) as appender:
        appender.add([long])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-1])
    with Appender(path):
        pass
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-1])
    with Appender(path):
        pass
    assert path.read_bytes() == b""


def test_what_was_added_is_there_for_another_reader_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "messages.jsonl"
    with Appender(path) as appender:
        appender.add([Message(role="user", content="a")])
        assert len(list(read_jsonl(path, Message))) == 1
        appender.add([])
        assert len(list(read_jsonl(path, Message))) == 1


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    write_jsonl(path, [Message(role="user", content="before")])

    def failing() -> Iterator[Message]:
        yield Message(role="user", content="after")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_jsonl(path, failing())
    assert [message.content for message in read_jsonl(path, Message)] == ["before"]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    write_jsonl(path, [Message(role="user", content=str(number)) for number in range(4)])
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace("user", "uesr")
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=rf"{path.name}:3: .*{tmp_path}"):
        list(read_jsonl(path, Message))


def test_a_line_that_is_being_written_while_a_growing_file_is_read_is_left_out_whole(tmp_path: Path) -> None:
    """Its end, which comes while the reader is at it, is no record."""
    path = tmp_path / "messages.jsonl"
    messages = [Message(role="user", content=text) for text in ("a", "b")]
    write_jsonl(path, messages)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert list(read_growing(path, Message)) == messages[:1]
    with pytest.raises(DataError, match=rf"{path.name}:2: "):
        list(read_jsonl(path, Message))
    with path.open("rb") as file:
        found = raw_lines(file, growing=True)
        read = [next(found), *found]
        with path.open("ab") as writer:
            writer.write(whole[-3:])
        assert [*read, *found] == whole.splitlines(keepends=True)[:1]


def test_records_of_several_kinds_come_back_as_what_they_were(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    verdicts: list[Verdict] = [
        Grade(prompt_id="p", candidate="c", value=None, judge="j"),
        Comparison(prompt_id="p", first="a", second="b", probability_first=0.1 + 0.2, outcome="second", judge="j"),
    ]
    write_jsonl(path, verdicts)
    adapter: TypeAdapter[Verdict] = TypeAdapter(Verdict)
    assert list(read_union(path, adapter)) == verdicts
