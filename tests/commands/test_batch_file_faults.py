"""Everything that can be wrong with a batch's results: no verdict is lost, given twice or invented, and only the rest is asked.

What is missing is asked of a real server afterwards. The table in docs/judges.md counts these cases (row 19).
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from aligndistill.commands.batch_files import import_answers, open_questions, read_results
from aligndistill.config.audit import AuditProbes
from aligndistill.errors import DataError
from aligndistill.records import Comparison
from aligndistill.stages.context import ModelSource
from aligndistill.stages.files import read_verdicts
from tests.chat.fault_server import Act, FaultServer, completion
from tests.stages.labelled import context_in, judge_of, label, labelling_of, shown

PROBES = AuditProbes(canaries=2, repeats=0)
QUESTIONS = 5 * 6 + 2 * 2  # three pairs of five prompts in both orders, and two canaries

Row = dict[str, Any]
Files = list[list[str]]
"""The lines of each file."""


def says(text: str) -> str:
    _, first, second = shown(text)
    return "[[A]]" if len(first) >= len(second) else "[[B]]"


def row(request: Row, reply: str | None = None, **other: Any) -> Row:
    message = {"role": "assistant", "content": reply or says(request["body"]["messages"][0]["content"])}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    return {"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}, "error": None, **other}


def lines(rows: list[Row]) -> list[str]:
    return [json.dumps(one) for one in rows]


def other_way(request: Row) -> Row:
    return row(request, "[[B]]" if says(request["body"]["messages"][0]["content"]) == "[[A]]" else "[[A]]")


FAILED: list[dict[str, Any]] = [
    {"response": None, "error": {"code": "batch_expired", "message": "too late"}},
    {"response": {"status_code": 429, "body": {"error": {"message": "slow down"}}}},
    {"response": {"status_code": 200, "body": {"no": "choices"}}},
    {"response": {"status_code": 200, "body": None}},
    {"response": "text"},
    {"response": {"status_code": 200, "body": {"choices": [{"message": {"content": "[[A]]"}, "finish_reason": "abort"}]}}},
]


def failed(requests: list[Row]) -> list[Row]:
    return [{**row(one), **FAILED[number]} for number, one in enumerate(requests[: len(FAILED)])]


def cut(whole: list[str]) -> list[str]:
    return [*whole[:-1], whole[-1][: len(whole[-1]) // 2]]


# What becomes of a batch's rows, and what is taken, failed, unknown, and open still.
FAULTS: dict[str, tuple[Callable[[list[Row]], Files], tuple[int, int, int, int]]] = {
    "whole": (lambda r: [lines([row(one) for one in r])], (QUESTIONS, 0, 0, 0)),
    "other order": (lambda r: [lines(Random(1).sample([row(one) for one in r], QUESTIONS))], (QUESTIONS, 0, 0, 0)),
    "missing rows": (lambda r: [lines([row(one) for one in r[::2]])], (QUESTIONS // 2, 0, 0, QUESTIONS // 2)),
    "two files": (lambda r: [lines([row(one) for one in r[::2]]), lines([row(one) for one in r[1::2]])], (QUESTIONS, 0, 0, 0)),
    "one of two files": (lambda r: [lines([row(one) for one in r[:7]]), []], (7, 0, 0, QUESTIONS - 7)),
    "repeated ids": (lambda r: [lines([row(one) for one in [*r, *r[:9]]])], (QUESTIONS, 0, 0, 0)),
    "the same file twice": (lambda r: [lines([row(one) for one in r])] * 2, (QUESTIONS, 0, 0, 0)),
    "unknown ids": (
        lambda r: [lines([*({**row(one), "custom_id": f"x{one['custom_id']}"} for one in r[:4]), *map(row, r[4:])])],
        (QUESTIONS - 4, 0, 4, 4),
    ),
    "no ids": (
        lambda r: [lines([*({**row(one), "custom_id": None} for one in r[:4]), {"id": "x"}, *map(row, r[4:])])],
        (QUESTIONS - 4, 1, 1, 4),
    ),
    "failed rows": (lambda r: [lines([*failed(r), *map(row, r[6:])])], (QUESTIONS - 6, 6, 0, 6)),
    "failed, then answered": (lambda r: [lines([*failed(r), *map(row, r)])], (QUESTIONS, 6, 0, 0)),
    "answered, then failed": (lambda r: [lines(list(map(row, r))), lines(failed(r))], (QUESTIONS, 6, 0, 0)),
    "last line cut short": (lambda r: [cut(lines([row(one) for one in r]))], (QUESTIONS - 1, 1, 0, 1)),
    "last line of two files cut short": (
        lambda r: [cut(lines([row(one) for one in r[:9]])), cut(lines([row(one) for one in r[9:]]))],
        (QUESTIONS - 2, 2, 0, 2),
    ),
    "lines that are no objects": (lambda r: [["[]", "null", *lines([row(one) for one in r]), "\x00"]], (QUESTIONS, 3, 0, 0)),
    "unreadable replies": (
        lambda r: [lines([*(row(one, "Who can say?") for one in r[:4]), *map(row, r[4:])])],
        (QUESTIONS, 0, 0, 4),
    ),
    "nothing": (lambda r: [[]], (0, 0, 0, QUESTIONS)),
}


@pytest.mark.parametrize("error", FAULTS)
def test_a_batch_is_joined_by_id_and_only_the_rest_is_asked(error: str, tmp_path: Path) -> None:
    make, (read, bad, unknown, missing) = FAULTS[error]
    context = context_in(tmp_path, prompts=5)

    def behave(body: Row, _: int) -> Act:
        text = body["messages"][0]["content"]
        return completion(says(text) if "<<" in text else "hello")

    with FaultServer(behave) as server:
        models: dict[str, ModelSource] = {"judge": server.config()}
        labelling = labelling_of(context, judge_of(tmp_path), models, PROBES)
        requests = list(open_questions(labelling, logprobs=False))
        files = []
        for number, content in enumerate(make(requests)):
            files.append(tmp_path / f"results-{number}.jsonl")
            files[-1].write_text("\n".join(content))
        found = import_answers(labelling, read_results(files))
        assert (found.read, found.failed, found.unknown, found.missing) == (read, bad, unknown, missing)
        again = list(open_questions(labelling, logprobs=False))
        assert len(again) == missing

        label(context, judge_of(tmp_path), models, PROBES)
        asked = [one["messages"][0]["content"] for one in server.bodies if "logprobs" not in one and "response_format" not in one]
    assert sorted(text for text in asked if "<<" in text) == sorted(one["body"]["messages"][0]["content"] for one in again)

    verdicts = [one for one in read_verdicts(context.folder) if isinstance(one, Comparison)]
    assert len({(one.first, one.second) for one in verdicts}) == len(verdicts) == 30
    texts = {one["id"]: one["text"] for one in map(json.loads, (tmp_path / "in" / "candidates.jsonl").read_text().splitlines())}
    for one in verdicts:
        assert one.outcome == ("first" if len(texts[one.first]) >= len(texts[one.second]) else "second")


@pytest.mark.parametrize("turn", ["first", "last"])
def test_two_different_answers_to_one_question_are_one_verdict(turn: str, tmp_path: Path) -> None:
    context = context_in(tmp_path, prompts=5)
    with FaultServer(lambda body, _: completion("[[A]]")) as server:
        models: dict[str, ModelSource] = {"judge": server.config()}
        labelling = labelling_of(context, judge_of(tmp_path), models, PROBES)
        requests = list(open_questions(labelling, logprobs=False))
        rows = [row(one) for one in requests]
        rows = [other_way(requests[0]), *rows] if turn == "first" else [*rows, other_way(requests[0])]
        (tmp_path / "results.jsonl").write_text("\n".join(lines(rows)))
        for _ in range(2):  # taken twice, it is still what it was
            found = import_answers(labelling, read_results([tmp_path / "results.jsonl"]))
            assert (found.failed, found.missing) == (0, 0)
        label(context, judge_of(tmp_path), models, PROBES)
        assert not server.bodies
    assert len(list(read_verdicts(context.folder))) == 30


@pytest.mark.parametrize("content", [b"<html>Not logged in</html>", b"\x1f\x8b\x08", b'{"custom_id": "'])
def test_a_file_without_one_readable_line_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"results\.jsonl row 1: not valid JSON.*Download the batch's results again"):
        read_results([tmp_path / "results.jsonl"])
