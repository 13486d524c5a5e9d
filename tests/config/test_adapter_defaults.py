"""The defaults of settings for adapters: learning rates, and PPO's own; in settings, fingerprints and messages."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aligndistill.config.adapter_defaults import adapter_defaults_line
from aligndistill.config.checks import check
from aligndistill.config.load import dump_config, load_config
from aligndistill.config.objectives import Ppo
from aligndistill.config.problems import show_key
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.pipeline import pipeline

LORA = {"r": 4}
FULL = {
    "dpo": 5e-7,
    "rrhf": 2e-5,
    "pro": 5e-6,
    "best_of_n": 2e-5,
    "ppo": 3e-6,
    "grpo": 1e-6,
    "rloo": 1e-6,
}
# TRL's table "LoRA without regret" has 2e-4, 5e-6 and 1e-5 for supervised fine-tuning, DPO and GRPO.
ADAPTERS = {"dpo": 5e-6, "rrhf": 2e-4, "pro": 5e-5, "best_of_n": 2e-4, "ppo": 1e-4, "grpo": 1e-5, "rloo": 1e-5}
# Thinking Machines' recipe of on-policy distillation has 5e-5 for all weights and 1e-4 for adapters.
OWN = {"ppo": 1e-4, "on_policy_distil": 1e-4}


def config(start: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    base = {
        "name": "x",
        "prompts": {"source": {"path": "p.jsonl"}},
        "start": {"model": "some/model", **(start or {})},
        "sft": {"demonstrations": {"path": "d.jsonl"}},
        "judge": {"kind": "function", "function": "a:b"},
        "reward_model": {},
        "students": {kind: {"objective": {"kind": kind}} for kind in FULL},
    }
    return RunConfig.model_validate({**base, **sections})


def rates(found: RunConfig) -> dict[str, float]:
    return {name: student.learning_rate for name, student in found.students.items()}


def test_adapters_of_the_start_have_their_own_rates_unless_one_is_given() -> None:
    assert rates(config()) == FULL
    adapted = config({"lora": LORA})
    assert rates(adapted) == ADAPTERS
    own = {kind: {"objective": {"kind": kind}} for kind in OWN}
    assert rates(config({"lora": LORA}, students=own, teacher={"model": "some/teacher"})) == OWN
    assert adapted.sft is not None
    assert adapted.sft.learning_rate == 2e-4
    assert adapted.reward_model is not None
    assert adapted.reward_model.learning_rate == 1e-5  # it has no adapters of its own
    given = config({"lora": LORA}, students={"dpo": {"objective": {"kind": "dpo"}, "learning_rate": 5e-7}})
    assert rates(given) == {"dpo": 5e-7}


def test_ppo_of_adapters_has_defaults_of_its_own_unless_they_are_given() -> None:
    def settings(start: dict[str, Any] | None, **objective: Any) -> tuple[str, int, float]:
        found = config(start, students={"ppo": {"objective": {"kind": "ppo", **objective}}}).students["ppo"].objective
        assert isinstance(found, Ppo)
        return found.critic, found.ppo_epochs, found.gae_lambda

    lora = {"lora": LORA}
    assert settings(None) == ("separate", 4, 0.95)
    assert settings(lora) == ("shared", 2, 1.0)
    assert settings(lora, ppo_epochs=4, gae_lambda=0.95) == ("shared", 4, 0.95)
    assert settings(lora, critic="separate") == ("separate", 2, 1.0)
    assert settings(lora, critic_learning_rate=1e-5) == ("separate", 2, 1.0)  # a rate for a separate critic asks for one


@pytest.mark.parametrize(("start", "problems"), [({}, ["students.ppo.max_steps"]), ({"lora": LORA}, [])])
def test_the_steps_of_ppo_are_whole_updates_of_the_epochs_that_count(start: dict[str, Any], problems: list[str]) -> None:
    """Six steps are one and a half updates of four epochs, and three of two."""
    found = config(start, students={"ppo": {"objective": {"kind": "ppo"}, "max_steps": 6}})
    assert [show_key(problem.path) for problem in check(found)] == problems


def test_a_new_start_is_trained_whole_and_its_students_are_adapters() -> None:
    found = config({"model": None, "from_scratch": {}, "lora": LORA})
    assert found.sft is not None
    assert found.sft.learning_rate == 2e-5
    assert rates(found) == ADAPTERS


def test_a_reward_model_has_its_own_adapters() -> None:
    adapted = config(reward_model={"lora": LORA})
    assert adapted.reward_model is not None
    assert adapted.reward_model.learning_rate == 1e-4
    assert rates(adapted) == FULL
    given = config(reward_model={"lora": LORA, "learning_rate": 3e-6}).reward_model
    assert given is not None
    assert given.learning_rate == 3e-6


def test_a_head_alone_has_a_rate_of_its_own_and_no_adapters() -> None:
    alone = config(reward_model={"trains": "head"}).reward_model
    given = config(reward_model={"trains": "head", "learning_rate": 3e-6}).reward_model
    assert alone is not None
    assert given is not None
    assert (alone.learning_rate, given.learning_rate) == (1e-3, 3e-6)
    with pytest.raises(ValidationError, match="remove one of the two"):
        config(reward_model={"trains": "head", "lora": LORA})


def test_the_baseline_that_a_run_adds_learns_like_the_other_students() -> None:
    students = {"dpo": {"objective": {"kind": "dpo"}}}
    assert resolved(config(students=students)).students["best_of_n"].learning_rate == 2e-5
    assert resolved(config({"lora": LORA}, students=students)).students["best_of_n"].learning_rate == 2e-4


def test_a_section_that_was_used_elsewhere_keeps_its_rate() -> None:
    """From Python, one student may be part of two configs."""
    plain = config()
    adapted = RunConfig(name="x", rankings={"source": {"path": "r"}}, start={"model": "m", "lora": LORA}, students=plain.students)
    assert rates(adapted) == ADAPTERS
    assert rates(plain) == FULL


def test_a_config_that_was_written_out_reads_back_with_the_same_rates_and_without_the_line(tmp_path: Path) -> None:
    found = config({"lora": LORA}, reward_model={"lora": LORA})
    (tmp_path / "c.yaml").write_text(dump_config(found))
    again = load_config(tmp_path / "c.yaml")
    assert again == found
    assert rates(again) == ADAPTERS
    assert adapter_defaults_line(again) is None


def test_the_line_names_every_rate_that_is_higher_by_default() -> None:
    assert adapter_defaults_line(config()) is None
    students = {"dpo": {"objective": {"kind": "dpo"}}, "pro": {"objective": {"kind": "pro"}, "learning_rate": 1e-6}}
    assert adapter_defaults_line(config({"lora": LORA}, students=students, reward_model={"lora": LORA})) == (
        "learning_rate: 0.0002 for sft, 5e-06 for students.dpo, 0.0001 for reward_model "
        "(higher by default, because lora trains adapters)"
    )
    students = {"ppo": {"objective": {"kind": "ppo", "gae_lambda": 0.9}, "learning_rate": 1e-5}}
    assert adapter_defaults_line(config({"lora": LORA}, sft=None, students=students)) == (
        "students.ppo.objective: critic shared, ppo_epochs 2 (by default with lora)"
    )


@pytest.mark.parametrize("rate", [None, 5e-6, 5e-7])
def test_the_fingerprint_is_that_of_the_effective_rate(rate: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def fingerprint(**training: Any) -> str:
        found = config({"lora": LORA}, students={"dpo": {"objective": {"kind": "dpo"}, **training}})
        return next(stage.fingerprint for stage in pipeline(found).stages if stage.name == "student-dpo")

    by_default = fingerprint()
    written = fingerprint(**({} if rate is None else {"learning_rate": rate}))
    assert (written == by_default) == (rate != 5e-7)
