"""What a run will ask is estimated in advance, what it asks stays within its budget, and a run that stopped there resumes."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.http.probe import QUESTION
from aligndistill.records import content_hash
from tests.chat.fault_server import Act, FaultServer, completion
from tests.e2e.command import ForkServer
from tests.e2e.small_run import write_config

PRICE = {"prompt": 10.0, "completion": 20.0}


def behave(body: dict[str, Any], _: int) -> Act:
    text = body["messages"][0]["content"]
    return completion("A" if int(content_hash(text), 16) % 2 else "B")


def judge_behind(server: FaultServer, config: dict[str, Any], **budget: Any) -> dict[str, Any]:
    teacher = {"kind": "endpoint", "base_url": server.base_url, "name": "slow teacher", "concurrency": 4, "timeout_seconds": 20}
    whole = {**config, "teacher": teacher, "judge": {"kind": "pairwise", "max_new_tokens": 8}}
    return {**whole, "budget": {"prices": {"slow teacher": PRICE}, **budget}}


def planned(output: str, stage: str, model: str = "slow teacher") -> dict[str, int]:
    """The numbers of a stage's line: prompts, verdicts, cached, requests, tokens of prompts and answers."""
    (line,) = (line for line in output.splitlines() if re.match(rf"{stage} +{model} ", line))
    numbers = [int(number.replace(",", "")) for number in re.findall(r"(?<= )[\d,]+(?= |$)", line)]
    return dict(zip(("prompts", "verdicts", "cached", "requests", "prompt_tokens", "answer_tokens"), numbers, strict=False))


def is_probe(body: dict[str, Any]) -> bool:
    return bool(body.keys() & {"logprobs", "response_format"})


def test_plan_says_what_run_then_asks(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    with FaultServer(behave) as server:
        write_config(folder / "run.yaml", judge_behind(server, config))
        before = forked.run(folder, "plan", "run.yaml")
        assert before.code == 0, before.errors
        assert server.bodies == []
        assert not (folder / "runs").exists()
        assert "<= " in before.output
        first = planned(before.output, "verdicts")
        # 60 prompts with 3 pairs, 20 canaries with one, 5 prompts asked again; both orders of each.
        assert first["requests"] == first["verdicts"] == (60 * 3 + 20 + 5 * 3) * 2

        assert forked.run(folder, "run", "run.yaml", "--until", "candidates").code == 0
        assert server.bodies == []
        exact = planned(forked.run(folder, "plan", "run.yaml").output, "verdicts")
        assert exact["requests"] <= first["requests"]
        assert exact["prompt_tokens"] <= first["prompt_tokens"]
        assert forked.run(folder, "run", "run.yaml", "--until", "verdicts").code == 0
        asked = [body for body in server.bodies if not is_probe(body)]
        assert len(asked) == exact["requests"]
        assert exact["answer_tokens"] == 8 * len(asked)
        assert "verdicts  slow" not in forked.run(folder, "plan", "run.yaml").output  # it is finished

        # Another run on the same store pays for none of them again: a changed setting rebuilds the stage.
        (manifest,) = (folder / "runs/store").glob("verdicts-*/manifest.json")
        manifest.unlink()
        kept = planned(forked.run(folder, "plan", "run.yaml").output, "verdicts")
        assert (kept["requests"], kept["cached"], kept["verdicts"]) == (0, len(asked), len(asked))


def test_each_member_of_a_panel_is_planned(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    with FaultServer(lambda body, n: completion("7") if body["model"] == "grader" else behave(body, n)) as server:
        whole = judge_behind(server, config)
        teacher = whole["teacher"]
        members = {
            "pairs": {"judge": {"kind": "pairwise", "max_new_tokens": 8, "model": teacher}},
            "grades": {"judge": {"kind": "rubric", "model": {**teacher, "name": "grader"}}},
        }
        write_config(folder / "run.yaml", {**whole, "judge": {"kind": "panel", "members": members}})
        assert forked.run(folder, "run", "run.yaml", "--until", "candidates").code == 0
        output = forked.run(folder, "plan", "run.yaml").output
        assert forked.run(folder, "run", "run.yaml", "--until", "verdicts").code == 0
        asked = Counter(body["model"] for body in server.bodies if not is_probe(body))
    assert {model: planned(output, "verdicts", model)["requests"] for model in asked} == asked
    assert 0 < asked["grader"] < asked["slow teacher"]  # by answer, and by pair in both orders


@pytest.mark.parametrize("limit", ["requests", "usd"])
def test_a_run_stops_at_its_budget_and_resumes_with_a_larger_one(
    folder: Path, forked: ForkServer, config: dict[str, Any], limit: str
) -> None:
    with FaultServer(behave) as server:
        each = {"requests": 1, "usd": (10 * PRICE["prompt"] + 2 * PRICE["completion"]) / 1e6}[limit]
        write_config(folder / "run.yaml", judge_behind(server, config, **{limit: 50 * each}))
        stopped = forked.run(folder, "run", "run.yaml", "--until", "verdicts")
        assert stopped.code == 6, stopped.errors
        assert f"budget.{limit}" in stopped.complaint
        sent = len(server.bodies)
        assert sent == 50 if limit == "requests" else 0 < sent <= 50
        again = forked.run(folder, "run", "run.yaml", "--until", "verdicts")
        first_questions = 1 if limit == "usd" else 0  # it is short enough for what is left
        assert (again.code, len(server.bodies)) == (6, sent + first_questions)

        plan = forked.run(folder, "plan", "run.yaml")
        assert "NOT ENOUGH" in plan.output
        cached = planned(plan.output, "verdicts")["cached"]
        assert cached == len([body for body in server.bodies if not is_probe(body)])

        write_config(folder / "run.yaml", judge_behind(server, config, **{limit: 5000 * each}))
        finished = forked.run(folder, "run", "run.yaml", "--until", "verdicts")
        assert finished.code == 0, finished.errors
        asked = Counter(json.dumps(body) for body in server.bodies)
        repeated = [json.loads(body) for body, times in asked.items() if times > 1]
        assert all(body["messages"][0]["content"] == QUESTION[0].content for body in repeated)  # once at every start
        spent = [json.loads(line) for line in (folder / "runs/run/spent.jsonl").read_text().splitlines()]
        assert sum(entry["requests"] for entry in spent) == len(server.bodies)
        assert all(entry["model"] == "slow teacher" for entry in spent)


def test_a_budget_in_money_needs_prices(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    with FaultServer(behave) as server:
        whole = judge_behind(server, config)
        write_config(folder / "run.yaml", {**whole, "budget": {"usd": 1.0}})
        ended = forked.run(folder, "check", "run.yaml")
    assert ended.code == 2
    assert "there is no price for 'slow teacher'" in ended.complaint


def test_the_budget_does_not_change_what_is_made(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    def stages(output: str) -> list[str]:
        return [line.split()[-1] for line in output.splitlines() if "  to do  " in line]

    with FaultServer(behave) as server:
        outputs = []
        for budget in ({}, {"requests": 7, "tokens": 100}):
            write_config(folder / "run.yaml", judge_behind(server, config, **budget))
            outputs.append(stages(forked.run(folder, "plan", "run.yaml", "-v").output))
    assert outputs[0] == outputs[1] != []
