import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aligndistill.models.conversation import Conversation
from aligndistill.models.from_scratch import train_tokenizer
from aligndistill.models.tokenise import Limits, PromptWithResponses, tokenise
from aligndistill.records import Finish
from aligndistill.training.offline.token_dataset import (
    ROWS,
    ScoredResponses,
    StoredExamples,
    conversation_fingerprint,
    read_examples,
    write_examples,
)
from tests.e2e.command import REPOSITORY, ForkServer
from tests.tiny_models import QUESTIONS, TEXTS, tiny_tokenizer, user

LIMITS = Limits(prompt=40, response=12, positions=48)
STOP: Finish = "stop"


def conversation() -> Conversation:
    return Conversation(tiny_tokenizer(), "chat")


def some() -> Iterator[ScoredResponses]:
    for number, question in enumerate(("No?", "blue " * 40, *QUESTIONS)):
        texts = TEXTS[number % 3 : number % 3 + 2 + number % 2]
        exchange = PromptWithResponses(user(question), texts, ["length" if n == 1 else STOP for n in range(len(texts))])
        yield ScoredResponses(exchange, [float(number - n) / 3 for n in range(len(texts))])


def written(path: Path, scratch: Path) -> StoredExamples:
    write_examples(path, scratch, conversation(), LIMITS, some())
    found = read_examples(path)
    assert found is not None
    return found


def test_what_is_read_is_what_tokenising_gives(tmp_path: Path) -> None:
    stored = written(tmp_path / "tokens" / "a", tmp_path / "scratch")
    expected = tokenise(conversation(), [one.exchange for one in some()], LIMITS)
    assert list(stored.groups) == expected.groups
    assert [one.scores for one in stored] == [list(one.scores) for n, one in enumerate(some()) if n in expected.indices]
    assert expected.too_long == 1
    assert expected.responses_cut > 0
    assert stored.dropped == {"prompt too long": expected.too_long}
    assert stored.cut == {"responses_cut": expected.responses_cut}
    assert stored[1:3] == [stored[1], stored[2]]
    assert stored[-1].group == expected.groups[-1]
    assert stored.groups[:2] == expected.groups[:2]
    assert not (tmp_path / "scratch").exists()


def test_reference_log_probs_stand_beside_their_rows(tmp_path: Path) -> None:
    stored = written(tmp_path / "a", tmp_path / "scratch")
    assert {one.reference for one in stored} == {None}
    reference = [[float(-n)] * len(one.scores) for n, one in enumerate(stored)]
    assert [one.reference for one in stored.with_reference(reference)] == reference


def test_a_killed_writer_leaves_nothing_that_could_be_read(tmp_path: Path, forked: ForkServer) -> None:
    code = f"""
import os, signal
from pathlib import Path
from aligndistill.training.offline.token_dataset import write_examples
from tests.training.offline.test_token_dataset import LIMITS, conversation, some

def until_killed():
    for number, one in enumerate(some()):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield one

write_examples(Path({str(tmp_path / "a")!r}), Path({str(tmp_path / "scratch")!r}), conversation(), LIMITS, until_killed())
"""
    done = subprocess.run([forked.python, "-c", code], check=False, cwd=REPOSITORY)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "scratch" / ROWS).is_file()
    assert read_examples(tmp_path / "a") is None
    assert len(written(tmp_path / "a", tmp_path / "scratch")) == 1 + len(QUESTIONS)


@pytest.mark.parametrize("damage", ["half of it", "no counts", "no rows"])
def test_a_file_that_is_not_whole_is_written_again(damage: str, tmp_path: Path) -> None:
    whole = list(written(tmp_path / "a", tmp_path / "scratch"))
    if damage == "half of it":
        rows = (tmp_path / "a" / ROWS).read_bytes()
        (tmp_path / "a" / ROWS).write_bytes(rows[: len(rows) // 2])
    else:
        (tmp_path / "a" / ("counts.json" if damage == "no counts" else ROWS)).unlink()
    assert read_examples(tmp_path / "a") is None
    assert list(written(tmp_path / "a", tmp_path / "scratch")) == whole


def test_the_faster_writer_wins(tmp_path: Path) -> None:
    def while_another_finishes() -> Iterator[ScoredResponses]:
        yield from some()
        written(tmp_path / "a", tmp_path / "other scratch")
        (tmp_path / "a" / "first").touch()

    write_examples(tmp_path / "a", tmp_path / "scratch", conversation(), LIMITS, while_another_finishes())
    assert (tmp_path / "a" / "first").exists()
    assert read_examples(tmp_path / "a") is not None


def test_nothing_that_fits_is_an_empty_file(tmp_path: Path) -> None:
    write_examples(tmp_path / "a", tmp_path / "scratch", conversation(), Limits(1, 1, None), some())
    stored = read_examples(tmp_path / "a")
    assert stored is not None
    assert len(stored) == 0
    assert stored.dropped == {"prompt too long": 2 + len(QUESTIONS)}


def test_a_fingerprint_belongs_to_what_decides_the_ids() -> None:
    mine = conversation_fingerprint(conversation())
    assert conversation_fingerprint(conversation()) == mine
    assert conversation_fingerprint(Conversation(tiny_tokenizer(), "plain")) != mine
    assert conversation_fingerprint(Conversation(tiny_tokenizer(), "chat", frozenset({7}))) != mine
    other = train_tokenizer([*TEXTS, "other words altogether"], 330, 64)
    assert conversation_fingerprint(Conversation(other, "chat")) != mine
    changed = train_tokenizer(TEXTS, 320, 64)
    assert conversation_fingerprint(Conversation(changed, "chat")) == mine
    changed.chat_template = changed.chat_template + " "
    assert conversation_fingerprint(Conversation(changed, "chat")) != mine
