"""A session with models that answer by a script."""

import io
import json
from collections.abc import Generator
from pathlib import Path

from rich.console import Console

from aligndistill.commands.chat.session import Session
from aligndistill.commands.chat.speaker import Params, Speaker
from aligndistill.errors import DataError
from aligndistill.records import Message


class Scripted(Speaker):
    """Answers with its name and how much of the conversation it has seen."""

    def answer(self, text: str, params: Params) -> Generator[str, None, None]:
        if text == "too long":
            raise DataError("the conversation has 99 tokens")
        said = f"{self.name} {len(self.messages)} {params.temperature:g}"
        self.is_cut = self.name in text
        if text == "stop":
            yield "begun"
            raise KeyboardInterrupt
        if text == "hostile":
            said = "red \x1b[31m"
        if text == "colons":
            said = ":x: b [b]c[/b]"
        yield from (said[:3], said[3:])
        self.turns += [Message(role="user", content=text), Message(role="assistant", content=said)]


def session(*names: str, width: int = 100) -> Session:
    speakers = [Scripted(name, None) for name in names]  # type: ignore[arg-type]
    return Session(speakers, Params(1.0, 8, 0), Console(file=io.StringIO(), width=width, color_system=None))


def shown(one: Session, *lines: str) -> str:
    one.run(iter(lines))
    file = one.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_history_is_kept_and_reset() -> None:
    assert shown(session("dpo"), "a", "b", "/reset", "c") == "dpo 0 1\ndpo 2 1\nNew conversation.\ndpo 0 1\n"


def test_the_system_turn_comes_first_and_goes() -> None:
    assert "dpo 1 1" in shown(session("dpo"), "/system Be kind.", "a")
    assert shown(session("dpo"), "/system x", "/system", "a").endswith("There is no system turn now.\ndpo 0 1\n")


def test_params_change_what_follows() -> None:
    assert shown(session("dpo"), "/params temperature=0.5", "a") == "temperature=0.5 max_new_tokens=8 seed=0\ndpo 0 0.5\n"


def test_mistakes_are_named_and_the_session_stays() -> None:
    text = shown(session("dpo"), "/nope", "/params x=1", "too long", "/save", "a")
    for message in ("there is no command /nope", "there is no parameter 'x'", "99 tokens", "give a file", "dpo 0 1"):
        assert message in text


def test_nothing_follows_quit_and_empty_lines_are_no_turns() -> None:
    assert shown(session("dpo"), "", "  ", "/quit", "a") == ""


def test_ctrl_c_ends_an_answer_alone() -> None:
    assert shown(session("dpo"), "stop", "a") == "begun (stopped)\ndpo 0 1\n"


def test_answers_cut_at_max_new_tokens_are_marked_with_what_raises_it() -> None:
    note = "(cut at 8 tokens: raise it by /params max_new_tokens=16)"
    one = session("dpo")
    assert shown(one, "dpo", "a") == f"dpo 0 1 {note}\ndpo 2 1\n"
    assert one.speakers[0].turns[1].content == "dpo 0 1"
    for width in (40, 200):
        assert shown(session("dpo", "start", width=width), "dpo").count(note) == 1
    one = session("dpo")
    one.takes_lines = False  # one answer to a script's prompt
    one.show("dpo")
    assert one.console.file.getvalue() == "dpo 0 1 (cut at 8 tokens)\n"  # type: ignore[attr-defined]


def test_two_answers_are_beside_each_other_where_there_is_room() -> None:
    lines = shown(session("dpo", "start"), "a").splitlines()
    assert lines[0].split() == ["dpo", "start"]
    assert lines[1].split() == ["dpo", "0", "1", "start", "0", "1"]
    assert shown(session("dpo", "start", width=60), "a") == "[dpo]\ndpo 0 1\n[start]\nstart 0 1\n"


def test_control_characters_of_an_answer_do_nothing_to_the_terminal() -> None:
    assert shown(session("dpo"), "hostile") == "red ⟨U+001B⟩[31m\n"
    assert "\x1b" not in shown(session("dpo", "start"), "hostile")


def test_words_between_colons_are_no_emoji() -> None:
    assert ":x: b [b]c[/b]" in shown(session("dpo"), "colons")
    assert shown(session("dpo", "start"), "colons").count(":x: b [b]c[/b]") == 2


def test_a_saved_conversation_has_a_line_for_each_model(tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    shown(session("dpo", "start"), "a", f"/save {file}", f"/save {file}")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["model"] for row in rows] == ["dpo", "start"] * 2
    assert rows[0]["messages"] == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "dpo 0 1"}]
    assert rows[0]["max_new_tokens"] == 8


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    assert "cannot write" in shown(session("dpo"), f"/save {tmp_path}")
