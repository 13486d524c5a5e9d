"""Runs whose judge is a model that thinks: behind a server where it can be switched off, and behind one where it cannot."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.chat.thinking_server import STYLES, Style, ThinkingServer
from tests.e2e.command import ForkServer
from tests.e2e.small_run import read_rows, write_config

PREFERS = re.compile(
    r"\[Start of answer A \w+\]\n(.*?)\n\[End of answer A .*\[Start of answer B \w+\]\n(.*?)\n\[End of answer B", re.DOTALL
)


def judged(question: str) -> str:
    """Prefers the answer with more letters, whatever its place."""
    found = PREFERS.search(question)
    if found is None:
        return "A"
    first, second = (sum(map(str.isalpha, text)) for text in found.groups())
    return "A" if first >= second else "B"


def style(name: str, **changes: Any) -> Style:
    return dataclasses.replace(STYLES[name], answer=judged, **changes)


def use(config: dict[str, Any], server: ThinkingServer, **teacher: Any) -> None:
    config["candidates"]["per_prompt"] = 3
    config["audit"] = {"probes": {"canaries": 4, "repeats": 1}}
    model = {"kind": "endpoint", "base_url": server.base_url, "name": "judge", "max_retries": 0, **teacher}
    config["judge"] = {"kind": "pairwise", "model": model}


def verdicts(folder: Path) -> list[dict[str, Any]]:
    (path,) = (folder / "runs/store").glob("verdicts-*/verdicts.jsonl")
    return list(read_rows(path))


def test_it_is_switched_off_and_verdicts_are_those_of_the_answer(folder: Path, config: dict[str, Any], forked: ForkServer) -> None:
    with ThinkingServer(style("vLLM with a parser")) as server:
        use(config, server)
        write_config(folder / "run.yaml", config)
        ended = forked.run(folder, "run", "run.yaml", "--until", "rankings")
        assert ended.code == 0, ended.errors
        found = verdicts(folder)
        questions = [body for body in server.bodies if body["max_tokens"] == 1]
        others = len(server.bodies) - len(questions)
    assert others == 2  # does it think, and does it stop
    assert all(body["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False} for body in questions)
    assert {round(row["label_mass"], 2) for row in found} == {0.99}
    assert all(0.05 < row["probability_first"] < 0.95 or row["probability_first"] > 0.85 for row in found)
    metrics = json.loads(next((folder / "runs/store").glob("audit-*/audit.json")).read_text())["metrics"]
    assert metrics["unparsed"]["mean"] == 0
    assert metrics["label_mass"] == pytest.approx(0.99)


def test_without_a_switch_it_thinks_and_verdicts_are_read_from_the_text(
    folder: Path, config: dict[str, Any], forked: ForkServer
) -> None:
    with ThinkingServer(style("vLLM without a parser", stopped_by=())) as server:
        use(config, server)
        write_config(folder / "run.yaml", config)
        ended = forked.run(folder, "run", "run.yaml", "--until", "rankings")
        assert ended.code == 0, ended.errors
        assert not [body for body in server.bodies if body["max_tokens"] == 1]
    found = verdicts(folder)
    assert {row["reply"] for row in found} == {"A", "B"}
    assert all(row["thoughts"].startswith("Okay, the user wants me to decide.") for row in found)


def test_thoughts_that_never_end_stop_the_run_after_a_few_questions(
    folder: Path, config: dict[str, Any], forked: ForkServer
) -> None:
    with ThinkingServer(style("vLLM with a parser", stopped_by=())) as server:
        use(config, server, thinking_tokens=100, concurrency=4)
        write_config(folder / "run.yaml", config)
        ended = forked.run(folder, "run", "run.yaml", "--until", "rankings")
        assert ended.code == 4
        probes, answered = 5 + 2, 8
        assert len(server.bodies) <= probes + answered + 4
        assert "none of the judge's first 8 verdicts could be read" in ended.errors
        assert "cut off inside its thoughts (164 tokens)" in ended.errors
        assert "thinking: off" in ended.errors
        assert "thinking_tokens" in ended.errors
        assert "Okay, the user wants me to decide." in ended.errors
        assert "Traceback" not in ended.errors
        # The server is started again with thinking switched off: the same command goes through.
        server.style = dataclasses.replace(server.style, thinks=False)
        again = forked.run(folder, "run", "run.yaml", "--until", "rankings")
    assert again.code == 0, again.errors
    assert all(row["outcome"] != "unparsed" for row in verdicts(folder))


def test_verdicts_that_mostly_cannot_be_read_stop_the_run(folder: Path, config: dict[str, Any], forked: ForkServer) -> None:
    def now_and_then(question: str) -> str:
        found = PREFERS.search(question)
        return "A" if found is None or len(found[1]) % 10 == 0 else "I would rather not say."

    with ThinkingServer(Style(thinks=False, logprobs=False, answer=now_and_then)) as server:
        use(config, server, concurrency=8)
        write_config(folder / "run.yaml", config)
        ended = forked.run(folder, "run", "run.yaml", "--until", "rankings")
        unanswered = len(server.bodies)
    assert ended.code == 4
    assert "could not be read" in ended.errors
    assert "'I would rather not say.'" in ended.errors
    assert unanswered < 2 * (32 + 8) + 10  # each unreadable one is asked twice


@pytest.mark.parametrize(
    ("name", "thinking", "code"), [("off", "auto", 0), ("none", "auto", 0), ("none", "off", 1), ("cut", "auto", 1)]
)
def test_doctor_says_whether_verdicts_can_be_read(
    folder: Path, config: dict[str, Any], forked: ForkServer, name: str, thinking: str, code: int
) -> None:
    with ThinkingServer(style("vLLM with a parser", **({} if name == "off" else {"stopped_by": ()}))) as server:
        use(config, server, thinking=thinking, thinking_tokens=100 if name == "cut" else 4096)
        write_config(folder / "run.yaml", config)
        ended = forked.run(folder, "doctor", "run.yaml")
        assert len(server.bodies) <= 9
    assert ended.code == code, ended.output
    lines = {line[5:26].strip(): line for line in ended.output.splitlines()}
    if (name, thinking) == ("none", "off"):
        assert "BAD" in ended.output
        assert "ignores every known switch" in ended.output
        return
    wanted = "yes, switched off by chat_template_kwargs" if name == "off" else "yes, with up to"
    assert wanted in lines["thinks"]
    assert ("prefers the right answer" in lines["a verdict"]) == (code == 0)
    assert lines["a verdict"].startswith("BAD") == (code == 1)
