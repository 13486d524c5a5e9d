"""What a plan counts, against numbers worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from aligndistill.chat.http.capabilities import ServerCapabilities
from aligndistill.commands.plan.plan import PlannedRequests, plan
from aligndistill.config.models import EndpointModel
from aligndistill.config.run import RunConfig
from aligndistill.data.split import split_of
from aligndistill.records import Message, prompt_id
from tests.e2e.small_run import SIZES, write_rows

TRAIN, HELD_OUT = 20, 6
SERVER = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "name": "m"}
REPLY, THOUGHTS = 64, 4096
"""The most tokens of a verdict and of the thoughts before it, by default."""


@pytest.fixture(autouse=True)
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [f"Name {number} rivers." for number in range(200)]
    of_split: dict[str, list[str]] = {"train": [], "held_out": []}
    for text in texts:
        of_split[split_of(prompt_id((Message(role="user", content=text),)), 0.25)].append(text)
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": one} for one in of_split["train"][:TRAIN] + of_split["held_out"][:HELD_OUT]])


def config(**changes: Any) -> RunConfig:
    """Two answers to each prompt are graded by the model behind the server: one request each."""
    return RunConfig.model_validate(
        {
            "name": "small",
            "prompts": {"source": {"path": "prompts.jsonl"}, "held_out": 0.25},
            "start": {"from_scratch": SIZES},
            "teacher": SERVER,
            "candidates": {"per_prompt": 2, "from": ["start"], "max_new_tokens": 12},
            "judge": {"kind": "rubric", "model": "teacher"},
            "audit": {"probes": {"canaries": 0, "repeats": 0}},
            "students": {"dpo": {"objective": {"kind": "dpo"}}},
            **changes,
        }
    )


def planned(**changes: Any) -> dict[str, list[PlannedRequests]]:
    """By stage."""
    found = plan(config(**changes))
    assert found.no_estimate is None
    stages = {one.stage for one in found.requests}
    return {stage: [one for one in found.requests if one.stage == stage] for stage in stages}


# ----------------------------------------------------------------------------------------------------------- thoughts

LOGPROBS = {"top_logprobs": 20}


@pytest.mark.parametrize(
    ("thinking", "found", "tokens_each"),
    [
        ("auto", None, REPLY),
        ("auto", {"thinks": True, **LOGPROBS}, REPLY + THOUGHTS),  # no switch works
        ("auto", {"thinks": True, "switch": "reasoning_effort", **LOGPROBS}, 1),
        ("auto", {"thinks": False, **LOGPROBS}, 1),
        ("on", None, REPLY + THOUGHTS),
        ("on", {"thinks": True, **LOGPROBS}, REPLY + THOUGHTS),
        ("on", {"thinks": False, **LOGPROBS}, 1),  # it cannot
    ],
)
def test_thoughts_are_counted_where_a_run_leaves_room_for_them(
    thinking: str, found: dict[str, Any] | None, tokens_each: int
) -> None:
    server = {**SERVER, "thinking": thinking}
    if found is not None:
        Path("runs/small").mkdir(parents=True)
        known = {EndpointModel.model_validate(server).identity: ServerCapabilities(**found).model_dump()}
        Path("runs/small/servers.json").write_text(json.dumps(known))
    whole = plan(config(teacher=server))
    (verdicts,) = (one for one in whole.requests if one.stage == "verdicts")
    assert (verdicts.requests, verdicts.answer_tokens) == (2 * (TRAIN + HELD_OUT), 2 * (TRAIN + HELD_OUT) * tokens_each)
    remark = "If m turns out to think, and nothing switches that off, each answer may take up to 4,096 tokens more."
    assert (remark in whole.text) == (thinking == "auto" and found is None)
