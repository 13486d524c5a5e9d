"""What `check` says of a judge that goes by authors."""

from typing import Any

import pytest

from aligndistill.config.checks import check
from aligndistill.config.run import RunConfig

DATA = {"path": "d.jsonl"}
BY_AUTHOR = {"kind": "author", "best": "demonstrations"}
GOOD: dict[str, Any] = {
    "name": "x",
    "prompts": {"source": {"path": "p.jsonl"}},
    "start": {"model": "some/model"},
    "teacher": {"model": "some/teacher"},
    "candidates": {"per_prompt": 1, "demonstrations": DATA},
    "judge": BY_AUTHOR,
    "students": {"spin": {"objective": {"kind": "dpo"}}},
    "evaluation": {"judge": {"kind": "likelihood"}},
}


def test_a_demonstration_and_one_own_answer_can_be_ranked() -> None:
    assert list(check(RunConfig.model_validate(GOOD))) == []
    assert list(check(RunConfig.model_validate({**GOOD, "evaluation": {"judge": None}}))) == []


@pytest.mark.parametrize(
    ("sections", "key", "said"),
    [
        ({"candidates": {"per_prompt": 2}}, ("judge", "best"), "(authors: start): set candidates.demonstrations"),
        ({"judge": {"kind": "author", "best": "techer"}, "candidates": {"from": ["start", "teacher"]}},
         ("judge", "best"), "no candidate is written by 'techer'; did you mean 'teacher'? (authors: start, teacher)"),
        ({"evaluation": {}}, ("evaluation", "judge"), "cannot compare students"),
        ({"evaluation": {"judge": BY_AUTHOR}}, ("evaluation", "judge", "kind"), "another kind here"),
        ({"students": {"ppo": {"objective": {"kind": "ppo", "reward": "judge"}}}},
         ("students", "ppo", "objective", "reward"), "give another reward"),
        ({"models": {"demonstrations": {"model": "m"}}}, ("models", "demonstrations"), "give the model another name"),
    ],
)  # fmt: skip
def test_what_it_cannot_know_is_refused(sections: dict[str, Any], key: tuple[str, ...], said: str) -> None:
    found = [one for one in check(RunConfig.model_validate({**GOOD, **sections})) if one.path == key]
    assert len(found) == 1
    assert said in found[0].text
