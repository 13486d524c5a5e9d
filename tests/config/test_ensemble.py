"""Ensembles of reward models: what `check` says of pessimism that has nothing to compare."""

from typing import Any

import pytest

from aligndistill.config.checks import check
from aligndistill.config.run import RunConfig


def problems(reward: list[dict[str, Any]], **reward_model: Any) -> list[tuple[Any, ...]]:
    config = {
        "name": "x",
        "prompts": {"source": {"path": "p.jsonl"}},
        "start": {"model": "some/model"},
        "teacher": {"model": "some/teacher"},
        "judge": {"kind": "likelihood"},
        "reward_model": reward_model,
        "students": {"ppo": {"objective": {"kind": "ppo", "reward": reward}}},
    }
    return [one.path for one in check(RunConfig.model_validate(config))]


KEY = ("students", "ppo", "objective", "reward", 0, "pessimism")


@pytest.mark.parametrize(
    ("source", "members", "found"),
    [("reward_model", 3, []), ("reward_model", 1, [KEY]), ("judge", 3, [KEY])],
)
def test_pessimism_needs_members(source: str, members: int, found: list[Any]) -> None:
    assert problems([{"source": source, "pessimism": 0.5}], ensemble=members) == found
    assert problems([{"source": source}], ensemble=members) == []
