"""A run whose prompts are filtered, by a served judge too: planned, run, and shown in the report."""

import json
from pathlib import Path
from typing import Any

from tests.chat.fault_server import Act, FaultServer, completion
from tests.e2e.command import ForkServer
from tests.e2e.small_run import PROMPTS, read_rows, write_config
from tests.e2e.test_plan_and_budget import is_probe, planned


def grade(body: dict[str, Any], _: int) -> Act:
    return completion("3" if "capital" in body["messages"][0]["content"] else "8")


def test_what_filters_drop_is_planned_counted_and_shown(folder: Path, forked: ForkServer, config: dict[str, Any]) -> None:
    with FaultServer(grade) as server:
        grader = {"kind": "endpoint", "base_url": server.base_url, "name": "grader", "licence": "mit"}
        judge = {"kind": "rubric", "model": grader, "max_new_tokens": 8}
        prompts = {**config["prompts"], "filters": {"length": [1, 40], "quality": {"judge": judge, "at_least": 5}}}
        write_config(
            folder / "run.yaml",
            {**config, "prompts": prompts, "budget": {"prices": {"grader": {"prompt": 1e3, "completion": 1e3}}}},
        )
        before = forked.run(folder, "plan", "run.yaml")
        assert before.code == 0, before.errors
        requests = planned(before.output, "filters", "grader")["requests"]
        ended = forked.run(folder, "run", "run.yaml")
        assert ended.code == 0, ended.errors
        asked = [body for body in server.bodies if not is_probe(body)]
    assert len(asked) == requests
    (made,) = (folder / "runs/store").glob("filters-*")
    dropped, kept = read_rows(made / "dropped.jsonl"), read_rows(made / "prompts.jsonl")
    assert len(dropped) + len(kept) == PROMPTS
    graded = [row for row in dropped if row["reason"] == "low quality"]
    assert graded
    assert all("capital" in row["text"] and row["score"] == 3 for row in graded)
    others = [row for row in dropped if row not in graded]  # such as the same question in capitals
    assert {row["reason"] for row in others} <= {"contains a held-out prompt"}
    assert requests == PROMPTS - len(others)
    assert f"low quality ({len(graded)})" in ended.errors + ended.output
    assert "prompts: low quality" in (folder / "runs/run/report.html").read_text()
    (candidates,) = (folder / "runs/store").glob("candidates-*/candidates.jsonl")
    assert {row["prompt_id"] for row in read_rows(candidates)} == {row["id"] for row in kept}
    stages = {one["stage"]: one for one in json.loads((folder / "runs/run/provenance.json").read_text())["stages"]}
    assert stages["filters"]["models"] == ["prompts_filter"]
    assert stages["filters"]["requests"] >= requests
    assert stages["filters"]["usd"] > 0
    assert stages["filters"]["templates"].keys() == {"rubric"}
    assert forked.run(folder, "run", "run.yaml").code == 0
    assert len([body for body in server.bodies if not is_probe(body)]) == len(asked)  # nothing is asked again
