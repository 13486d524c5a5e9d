"""A run that is killed while models write prompts ends like one that was not, and asks the server nothing twice."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aligndistill.records import Prompt
from aligndistill.reporting.report import read_report
from aligndistill.store.jsonl import read_jsonl
from tests.e2e.command import ForkServer
from tests.e2e.reports import written_rows
from tests.e2e.small_run import read_rows, write_config
from tests.e2e.test_kill import alive
from tests.elicitation.teacher_server import TeacherServer

STEPS = [
    {"name": "more", "kind": "expand", "target": 120},
    {"name": "harder", "kind": "evolve"},
    {"name": "topics", "kind": "curate", "topics": {"generate": 4}, "subtopics": 2, "per_topic": 10},
]
KILLED_AT = (9, 80, 300)
"""After so many requests: while prompts are expanded, evolved and compared."""

IN_FLIGHT = 2


@contextmanager
def serving(log: Path) -> Iterator[int]:
    server = TeacherServer(0, log)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def killing_after(log: Path, requests: int) -> Callable[[int], None]:
    """Kill the run once the server has been asked so often."""

    def kill(pid: int) -> None:
        while not (log.is_file() and log.read_bytes().count(b"\n") >= requests):
            assert alive(pid), "the run ended before it was killed"
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)

    return kill


def eliciting(config: dict[str, Any], port: int) -> dict[str, Any]:
    teacher = {"kind": "endpoint", "base_url": f"http://127.0.0.1:{port}/v1", "name": "scripted", "concurrency": IN_FLIGHT}
    return {**config, "teacher": teacher, "prompts": {**config["prompts"], "elicit": STEPS}}


def prompts_of(folder: Path) -> list[Prompt]:
    (made,) = (folder / "runs/store").glob("prompts-topics-*")
    return list(read_jsonl(made / "prompts.jsonl", Prompt))


def asked(log: Path) -> Counter[tuple[str, int, int]]:
    """How often each request came: its text, limit and seed."""
    return Counter((body["messages"][-1]["content"], body["max_tokens"], body.get("seed", 0)) for body in read_rows(log))


def test_killed_while_models_write_prompts(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    logs = {}
    for place in ("whole", "killed"):
        (folder / place).mkdir()
        logs[place] = folder / place / "asked.jsonl"
        for name in ("prompts.jsonl", "counting_judge.py"):
            (folder / place / name).write_bytes((folder / name).read_bytes())
        (folder / place / "start").symlink_to(folder / "start")
    run = ("run", "run.yaml", "--until", "prompts-topics")
    with serving(logs["whole"]) as port:
        write_config(folder / "whole/run.yaml", eliciting(config, port))
        ended = forked.run(folder / "whole", *run)
        assert ended.code == 0, ended.errors
    with serving(logs["killed"]) as port:
        write_config(folder / "killed/run.yaml", eliciting(config, port))
        for requests in KILLED_AT:
            ended = forked.run(folder / "killed", *run, meanwhile=killing_after(logs["killed"], requests))
            assert ended.code == -signal.SIGKILL, ended.errors
        ended = forked.run(folder / "killed", "run", "run.yaml", "evaluation.judge=null")
        assert ended.code == 0, ended.errors
    rows, lines = written_rows(folder / "killed", "prompts-topics", "prompts.jsonl")
    assert (rows, lines) == written_rows(folder / "whole", "prompts-topics", "prompts.jsonl")
    assert len(lines) == rows.count(b'"lineage"') > 160
    report = read_report(folder / "killed/runs/run/report.json")
    assert [(one.step, one.kept > 30, one.tokens_per_prompt is not None) for one in report.elicitation] == [
        (one["name"], True, True) for one in STEPS
    ]
    assert "Prompts that models wrote" in (folder / "killed/runs/run/report.html").read_text()
    assert len(prompts_of(folder / "whole")) > 60 + 120
    once, again = asked(logs["whole"]), asked(logs["killed"])
    assert again.keys() == once.keys()
    assert set(once.values()) == {1}
    # A request whose reply was not yet on disk when the process died is the one that may come again.
    assert again.total() - once.total() <= IN_FLIGHT * len(KILLED_AT)
