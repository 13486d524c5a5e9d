"""A run whose start learns from what a server's model writes, and whose candidates it revises: killed, resumed, nothing lost."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aligndistill import open_run
from tests.chat.fault_server import Act, FaultServer, completion
from tests.e2e.command import ForkServer
from tests.e2e.small_run import PROMPTS, read_rows, write_config, write_rows

CONCURRENCY = 4
INSTRUCTION = "Answer in the way of the old school."


def behave(body: dict[str, Any], number: int) -> Act:
    """The teacher: it answers the same to the same, revises by adding a word, and refuses to answer about opposites."""
    turns = body["messages"]
    asked = turns[-1]["content"]
    if turns[0]["content"].startswith("Criticise an answer"):
        return completion("It could be kinder." if len(turns) == 1 else f"Kindly {body['seed'] % 1000}.")
    if "opposite" in asked:
        return completion("I'm sorry, but I can't help with that.")
    return completion(f"Gladly, old friend {body['seed'] % 1000}.")


def use(config: dict[str, Any], server: FaultServer) -> None:
    config["teacher"] = {
        "kind": "endpoint",
        "base_url": server.base_url,
        "name": "t",
        "concurrency": CONCURRENCY,
        "thinking": "off",
    }
    config["sft"] = {
        "demonstrations": {
            "label": {
                "instruction": "how.txt",
                "examples": {"path": "shots.jsonl", "per_prompt": 2, "choose": "nearest"},
                "per_prompt": 2,
                "keep": "judge",
                "revise": {"principles": ["Be kind."], "max_new_tokens": 12},
            }
        },
        "learning_rate": 1e-3,
        "max_steps": 3,
    }
    config["candidates"] |= {"per_prompt": 2, "revise": {"principles": ["Be kind."], "max_new_tokens": 12}}
    config["students"] = {}


def write_inputs(folder: Path) -> None:
    (folder / "how.txt").write_text(INSTRUCTION + "\n")
    rows = read_rows(folder / "teacher_demonstrations.jsonl")[:30]
    write_rows(folder / "shots.jsonl", rows)


def kill_after(server: FaultServer, calls: int) -> Callable[[int], None]:
    def kill(pid: int) -> None:
        deadline = time.monotonic() + 60
        while len(server.bodies) < calls and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)

    return kill


def made(folder: Path, stage: str, file: str) -> Path:
    (path,) = (folder / "runs/store").glob(f"{stage}-*/{file}")
    return path


def test_killed_while_labels_and_revisions_are_asked_and_nothing_is_asked_twice(
    folder: Path, config: dict[str, Any], forked: ForkServer
) -> None:
    with FaultServer(behave) as server:
        use(config, server)
        write_inputs(folder)
        write_config(folder / "run.yaml", config)
        planned = forked.run(folder, "plan", "run.yaml")
        assert planned.code == 0, planned.errors
        assert not server.bodies
        for calls in (20, 100, 300):  # labels; their critiques or revisions; critiques of candidates
            ended = forked.run(folder, "run", "run.yaml", meanwhile=kill_after(server, calls))
            assert ended.code == -signal.SIGKILL, ended.errors
        ended = forked.run(folder, "run", "run.yaml")
        assert ended.code == 0, ended.errors
        asked = Counter(json.dumps(body, sort_keys=True) for body in server.bodies)
    questions = [json.loads(text) for text in asked]
    prompts = read_rows(made(folder, "prompts", "prompts.jsonl"))
    training = {row["messages"][0]["content"] for row in prompts if row["split"] == "train"}
    held_out = {row["messages"][0]["content"] for row in prompts if row["split"] == "held_out"}
    labelling = [body for body in questions if body["messages"][0]["content"] == INSTRUCTION]
    assert {body["messages"][-1]["content"] for body in labelling} == training
    shown = {turn["content"] for body in labelling for turn in body["messages"][1:-1] if turn["role"] == "user"}
    assert shown
    assert not shown & held_out

    # Only what was under way when it was killed is asked again, and the first questions to the server of each of four runs.
    assert asked.total() - len(asked) <= 3 * CONCURRENCY + 4 * 4
    requests = {line.split()[0]: line.split() for line in planned.output.splitlines() if line.startswith(("labels", "candidates"))}
    assert int(requests["labels"][5].replace(",", "")) == 2 * len(training)

    rows = read_rows(made(folder, "demonstrations", "demonstrations.jsonl"))
    assert {row["split"] for row in rows} == {"train"}
    assert len({row["prompt_id"] for row in rows}) == len(rows) <= len(training)
    assert {turn["role"] for row in rows for turn in row["messages"]} == {"user"}
    assert "old school" not in json.dumps(rows)
    manifest = json.loads(made(folder, "demonstrations", "manifest.json").read_text())
    opposites = sum("opposite" in text for text in training)
    assert manifest["dropped"]["refusal"] == 2 * opposites

    candidates = read_rows(made(folder, "candidates", "candidates.jsonl"))
    revised = {row["id"]: row["revises"] for row in candidates if row["author"] == "start+teacher-revision"}
    assert len(revised) > PROMPTS / 2
    assert set(revised.values()) <= {row["id"] for row in candidates if row["author"] == "start"}
    ranked = read_rows(made(folder, "rankings", "rankings.jsonl"))
    assert {response["author"] for row in ranked for response in row["responses"]} == {"start", "start+teacher-revision"}
    report = json.loads((folder / "runs/run/report.json").read_text())
    assert report["audit"]["revisions_preferred"]["n"] > 0
    assert report["demonstrations"]["counts"]["labelled prompts"] == len(rows)
    table = open_run(folder / "runs/run").table("demonstrations")
    assert list(table["response"]) == [row["response"] for row in rows]
    assert set(table["task"]) == {"answer"}
    assert "revision beats its original" in (folder / "runs/run/report.html").read_text()


def test_the_start_itself_may_write_its_labels(folder: Path, config: dict[str, Any], forked: ForkServer) -> None:
    """Self-knowledge: it is asked as it was before it learns from them. The vote keeps what most of its answers say."""
    config["sft"] = {
        "demonstrations": {
            "label": {"model": "start", "per_prompt": 4, "keep": "agreement", "at_least": 0.3, "max_new_tokens": 12}
        },
        "learning_rate": 1e-3,
        "max_steps": 2,
    }
    write_config(folder / "run.yaml", config)
    ended = forked.run(folder, "run", "run.yaml", "--until", "start")
    assert ended.code == 0, ended.errors
    names = {path.name.rpartition("-")[0] for path in (folder / "runs/store").glob("*-*") if (path / "manifest.json").exists()}
    assert names == {"prompts", "start-before-sft", "labels", "demonstrations", "start"}
    assert "dropped:" in ended.errors
