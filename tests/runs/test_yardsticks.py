"""Which runs are measured by the same: configs that differ in one place."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from aligndistill.config.load import load_config
from aligndistill.runs.yardsticks import Yardsticks, incomparable, yardsticks

OTHER_JUDGE = {"win": "The judges differ: win rates of these runs are not comparable."}
NO_STAGES: dict[str, Path] = {}


def server(name: str, url: str = "http://localhost:8000/v1", **more: Any) -> dict[str, Any]:
    return {"kind": "endpoint", "name": name, "base_url": url, **more}


def measured(folder: Path, stages: dict[str, Path] = NO_STAGES, **sections: Any) -> Yardsticks:
    """The yardsticks of a run with these sections."""
    judge = {"kind": "pairwise", "model": "teacher"}
    config = {"name": "a", "prompts": {"source": {"path": "p.jsonl"}}, "start": {"model": "s"}, "judge": judge, **sections}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return yardsticks(load_config(folder / "config.yaml"), stages)


def test_each_yardstick_that_differs_excludes_its_measure() -> None:
    one = Yardsticks({"kind": "author"}, "facts:score", "0123")
    assert incomparable((one, one)) == {}
    assert incomparable((one, Yardsticks(None, None, None))).keys() == {"win", "truth", "reward"}
    assert incomparable((one, Yardsticks({"kind": "author"}, "facts:other", "0123"))) == {
        "truth": "The truth functions differ: the truth of these runs is not comparable."
    }


def test_another_teacher_is_another_judge(tmp_path: Path) -> None:
    small, large = (measured(tmp_path, teacher=server(name)) for name in ("small", "large"))
    assert incomparable((small, large)) == OTHER_JUDGE
    local, revised = (measured(tmp_path, teacher={"model": "t", "revision": revision}) for revision in ("1", "2"))
    assert incomparable((local, revised)) == OTHER_JUDGE


def test_a_teacher_that_is_trained_otherwise_is_another_judge(tmp_path: Path) -> None:
    trained = {"from_scratch": {}, "sft": {"demonstrations": {"path": "d.jsonl"}}}
    sections: dict[str, Any] = {"teacher": trained, "judge": {"kind": "likelihood"}}
    stages = [{"teacher": tmp_path / f"teacher-{fingerprint}"} for fingerprint in ("0" * 16, "1" * 16)]
    one, again, other = (measured(tmp_path, each, **sections) for each in (stages[0], stages[0], stages[1]))
    assert incomparable((one, again)) == {}
    assert incomparable((one, other)) == OTHER_JUDGE


@pytest.mark.parametrize("place", ["judge", "evaluation"])
def test_another_inline_model_is_another_judge(tmp_path: Path, place: str) -> None:
    judges = [{"kind": "rubric", "model": server(name)} for name in ("small", "large")]
    teacher = server("teacher")
    sections: list[Any] = [{"judge": one} if place == "judge" else {"evaluation": {"judge": one}} for one in judges]
    one, other = (measured(tmp_path, **each, teacher=teacher) for each in sections)
    assert incomparable((one, other)) == OTHER_JUDGE


def test_another_member_of_a_panel_is_another_judge(tmp_path: Path) -> None:
    scores = {"judge": {"kind": "reward_model", "model": "r"}}
    judges: list[dict[str, Any]] = [{"kind": "pairwise", "model": server(name)} for name in ("small", "large")]
    panels = [{"kind": "panel", "members": {"a": {"judge": judge}, "b": scores}} for judge in judges]
    one, other = (measured(tmp_path, judge=panel) for panel in panels)
    assert incomparable((one, other)) == OTHER_JUDGE


def test_the_same_model_elsewhere_is_the_same_judge(tmp_path: Path) -> None:
    """Address, key, concurrency and the place in the config, where a model is given, say nothing about who judges."""
    elsewhere = server("large", "http://elsewhere/v1", concurrency=3, api_key_env="OTHER_KEY", licence="mit")
    here = measured(tmp_path, teacher=server("large"))
    assert incomparable((here, measured(tmp_path, teacher=elsewhere))) == {}
    assert incomparable((here, measured(tmp_path, judge={"kind": "pairwise", "model": elsewhere}))) == {}
    prices = {"prices": {"large": {"prompt": 1.0, "completion": 2.0}}}
    assert incomparable((here, measured(tmp_path, teacher=server("large"), budget=prices))) == {}
