"""The teacher behind a real server that is not ours: a change of config alone, and nothing is paid for twice."""

import json
import os
import random
import signal
import time
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.chat.fault_server import Act, FaultServer, send
from tests.e2e.command import ForkServer
from tests.e2e.small_run import SIZES, read_rows, small_config, write_config, write_rows
from tests.judges.tiny_judge import MARKER, WORDS
from tests.judges.transformers_server import TransformersServer

PROMPTS, DEMONSTRATIONS, CONCURRENCY = 12, 80, 4
ANSWERS = [f"the {MARKER} house", f"a {MARKER} door", "the old hill", "more wind and rain"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Prompts in the words that the tiny judge knows, and demonstrations half of which it likes."""
    chance = random.Random(1)

    def words() -> str:
        return " ".join(chance.choices(WORDS, k=4))

    write_rows(tmp_path / "prompts.jsonl", [{"prompt": words()} for _ in range(PROMPTS)])
    rows = [{"prompt": words(), "completion": ANSWERS[number % 4]} for number in range(DEMONSTRATIONS)]
    write_rows(tmp_path / "student_demonstrations.jsonl", rows)
    write_rows(tmp_path / "teacher_demonstrations.jsonl", rows)
    return tmp_path


def base_config() -> dict[str, Any]:
    config = small_config()
    config["sft"] |= {"max_steps": 60}
    config["candidates"] |= {"per_prompt": 2, "max_new_tokens": 10}
    config["evaluation"] = {"max_new_tokens": 9}  # else the teacher's answers would be asked as its candidates were
    config["prompts"]["held_out"] = 0.4
    config["start"]["from_scratch"] = {**SIZES, "vocab_size": 300}
    return config


def endpoint_overlay(base_url: str, server: TransformersServer) -> dict[str, Any]:
    teacher = {"kind": "endpoint", "base_url": base_url, "name": server.model, "concurrency": CONCURRENCY, "timeout_seconds": 60}
    return {
        "teacher": teacher,
        "judge": {"kind": "pairwise", "template": server.pairwise_template, "max_new_tokens": 6},
        "candidates": {"from": ["start", "teacher"]},
    }


def counting_proxy(base_url: str) -> FaultServer:
    """Passes every request on to the real server, and keeps it."""

    def behave(body: dict[str, Any], number: int) -> Act:
        def act(handler: BaseHTTPRequestHandler) -> None:
            data = json.dumps(body).encode()
            request = urllib.request.Request(
                f"{base_url}/chat/completions", data, {"Content-Type": "application/json"}, method="POST"
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                send(answer.status, answer.read())(handler)

        return act

    return FaultServer(behave)


def test_swapping_the_teacher_is_a_change_of_config_alone(
    folder: Path, forked: ForkServer, transformers_server: TransformersServer
) -> None:
    write_config(folder / "small.yaml", base_config())
    store = folder / "runs/store"
    with counting_proxy(transformers_server.base_url) as proxy:
        write_config(folder / "endpoint.yaml", endpoint_overlay(proxy.base_url, transformers_server))

        def kill_after(calls: int) -> Any:
            def kill(pid: int) -> None:
                deadline = time.monotonic() + 60
                while len(proxy.bodies) < calls and time.monotonic() < deadline:
                    time.sleep(0.002)
                os.kill(pid, signal.SIGKILL)

            return kill

        sampled = PROMPTS * 2
        for calls in (sampled // 2, sampled + 15, sampled + 60):  # the teacher writes; it judges; it judges
            ended = forked.run(folder, "run", "small.yaml", "endpoint.yaml", meanwhile=kill_after(calls))
            assert ended.code == -signal.SIGKILL, ended.errors
        ended = forked.run(folder, "run", "small.yaml", "endpoint.yaml")
        assert ended.code == 0, ended.errors

        asked = Counter(json.dumps(body, sort_keys=True) for body in proxy.bodies)
        probes = 2 * 3  # each time it is started, the first question is asked for log-probabilities, in vain, with 20 and with 5
        assert asked.total() - len(asked) <= 3 * CONCURRENCY + probes
        total = asked.total()
        ended = forked.run(folder, "run", "small.yaml", "endpoint.yaml")
        assert "Nothing to do" in ended.output
        assert len(proxy.bodies) == total

    (candidates,) = store.glob("candidates-*/candidates.jsonl")
    assert {row["author"] for row in read_rows(candidates)} == {"start", "teacher"}
    (path,) = store.glob("verdicts-*/verdicts.jsonl")
    verdicts = read_rows(path)
    orders = {(row["first"], row["second"]) for row in verdicts}
    assert len(orders) == len(verdicts)
    assert {(second, first) for first, second in orders} == orders
    texts = {row["id"]: row["text"] for row in read_rows(candidates)}
    clear = [row for row in verdicts if (MARKER in texts[row["first"]]) != (MARKER in texts[row["second"]])]
    agreed = sum(row["outcome"] == ("first" if MARKER in texts[row["first"]] else "second") for row in clear)
    assert len(clear) > 10
    assert agreed / len(clear) > 0.7  # the candidates are not the sentences that it was trained on

    report = json.loads((folder / "runs/small/report.json").read_text())
    assert report["judge"]["kind"] == "pairwise"
    assert report["judge"]["calls"] >= len(verdicts)
    assert report["teacher"]["length_tokens"]["n"] == report["start"]["length_tokens"]["n"] > 0
    for student in report["students"].values():
        assert 0 <= student["win_rate"]["mean"] <= 1
