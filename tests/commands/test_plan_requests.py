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


# ----------------------------------------------------------------------------------------------------------- students

GRADED = {"kind": "rubric", "model": "teacher"}
PAIRS = {"kind": "pairwise", "model": "teacher"}


@pytest.mark.parametrize(
    ("objective", "student", "evaluation", "updates", "watched"),
    [
        ({"evaluate_every": None}, {}, {}, 15, 0),
        ({"evaluate_every": 2}, {}, {}, 15, 8 * 4),  # before updates 0, 2, ... 14
        ({"evaluate_every": 5}, {}, {}, 15, 3 * 4),  # before updates 0, 5 and 10, and not after the last
        ({"evaluate_every": 5, "evaluate_prompts": 64}, {}, {}, 15, 3 * HELD_OUT),
        ({"evaluate_every": 5}, {}, {"prompts": 3}, 15, 3 * 3),
        ({"evaluate_every": 4, "minibatches": 2}, {}, {}, 16, 2 * 4),  # 7.5 updates of 8 prompts are 8: 16 batches
        ({"evaluate_every": 4}, {"max_steps": 20}, {}, 5, 2 * 4),  # four passes are one update
    ],
)
def test_win_rates_during_ppo_are_counted_beside_its_rewards(
    objective: dict[str, Any], student: dict[str, Any], evaluation: dict[str, Any], updates: int, watched: int
) -> None:
    """`updates` counts batches of 4 prompts: 3 passes over 20 are 15. `watched` counts pairs, which are shown in both orders."""
    ppo = {"kind": "ppo", "reward": GRADED, "samples_per_prompt": 3, "evaluate_prompts": 4, **objective}
    students = {"ppo": {"objective": ppo, "batch_size": 4, "num_train_epochs": 3, "max_response_tokens": 8, **student}}
    found = planned(students=students, evaluation={"judge": PAIRS, "max_new_tokens": 8, **evaluation})["student-ppo"]
    rewards, *watching = found
    assert (rewards.prompts, rewards.requests) == (4 * updates, 4 * updates * 3)
    assert [(one.model, one.prompts, one.requests) for one in watching] == ([("m", watched, 2 * watched)] if watched else [])
    assert all(one.answer_tokens == one.requests * REPLY and one.prompt_tokens > 0 for one in found)


@pytest.mark.parametrize("kind", ["ppo", "on_policy_distil"])
@pytest.mark.parametrize(("given", "of_rounds"), [("same", [TRAIN, TRAIN, TRAIN]), ({"per_round": 5}, [5, 5, 5]), ("fresh", None)])
def test_a_student_of_a_round_samples_for_the_prompts_of_its_round(kind: str, given: Any, of_rounds: list[int] | None) -> None:
    objective = {"kind": kind, "samples_per_prompt": 2, **({"reward": GRADED} if kind == "ppo" else {"form": "sampled"})}
    students = {"own": {"objective": objective, "batch_size": 1, "max_response_tokens": 8}}
    rounds = {"count": 3, "promotes": "own", "prompts": given, "stop": None}
    stages = planned(students=students, rounds=rounds, evaluation={"judge": GRADED})
    found = [one for stage in ("student-own", "student-own-r2", "student-own-r3") for one in stages[stage]]
    assert [one.requests for one in found] == [2 * one.prompts for one in found]
    prompts = [one.prompts for one in found]
    if of_rounds is not None:
        assert prompts == of_rounds
    else:  # parts by a hash, each prompt in one of them
        assert sum(prompts) == TRAIN
        assert all(0 < count < TRAIN for count in prompts)
