"""Each warning on a log made by hand, and none on a good one."""

from typing import Any

import pytest

from aligndistill.config.objectives import OnPolicyDistil, Ppo
from aligndistill.training.on_policy.health import all_warnings, health, new_warnings

SETTINGS = Ppo(kind="ppo", kl_target=4.0, evaluate_every=2)
KNOBS = {
    "kl": "kl_coefficient",
    "critic": "critic_learning_rate",
    "entropy": "entropy_coefficient",
    "length": "missing_eos_penalty",
    "overoptimised": "kl_budget",
}


def log(updates: int = 12, **columns: list[float]) -> list[dict[str, float]]:
    """A run that goes well, with some of its columns replaced from the first update on."""
    entries = []
    for n in range(updates):
        entry: dict[str, float] = {
            "update": n + 1,
            "loss": 0.1,
            "score": 1.0 + 0.1 * n,
            "score_std": 1.0,
            "kl_k1_nats": min(0.5 * n, 4.0),
            "explained_variance": -0.5 if n < 3 else 0.3,
            "entropy_nats": 2.0 - 0.05 * n,
            "length_tokens": 20.0 + n % 3,
        }
        if n % 2 == 0:
            entry["held_out_win_rate"] = 0.5 + 0.02 * n
        entries.append(entry | {name: values[n] for name, values in columns.items() if n < len(values)})
    return entries


def names(entries: list[dict[str, float]], settings: Ppo = SETTINGS) -> list[str]:
    return [warning.name for warning in health(entries, settings)]


def test_a_good_run_is_left_alone() -> None:
    assert all_warnings(log(30), SETTINGS) == []
    assert all_warnings([{"loss": 1.0}, *log(2)], SETTINGS) == []


BAD: dict[str, tuple[dict[str, Any], int]] = {
    "kl": ({"kl_k1_nats": [1.0, 3.0, 9.0, 9.0, 9.0, 9.0]}, 5),  # three in a row past twice the target
    "critic": ({"explained_variance": [-0.1] * 12}, 6),  # five in a row, once the critic has had a start
    "entropy": ({"entropy_nats": [2.0, 2.0, 2.0, 1.0, 0.5, 0.2, 0.2, 0.2]}, 7),  # the mean of three is below a fifth
    "length": ({"length_tokens": [20.0, 20.0, 20.0, 20.0, 40.0, 40.0, 40.0]}, 6),
    "overoptimised": ({"score": [1.0, 1.0, 2.0, 2.0, 3.0, 3.0], "held_out_win_rate": [0.6] * 6}, 3),
}


@pytest.mark.parametrize("name", BAD)
def test_each_warning_comes_when_its_cause_does_and_names_a_knob(name: str) -> None:
    columns, since = BAD[name]
    entries = log(len(next(iter(columns.values()))), **columns)
    warnings = all_warnings(entries, SETTINGS)
    assert [(warning.name, warning.update) for warning in warnings][:1] == [(name, since)]
    assert {warning.name for warning in warnings} == {name}
    assert KNOBS[name] in warnings[0].text
    assert name in names(entries[:since])
    assert names(entries[: since - 1]) == []


def test_answers_that_shrink_are_noticed_too() -> None:
    assert names(log(6, length_tokens=[20.0, 20.0, 20.0, 5.0, 5.0, 5.0])) == ["length"]


def test_a_warning_is_given_once_until_it_goes_away() -> None:
    entries = log(12, kl_k1_nats=[9.0] * 5 + [1.0] * 3 + [9.0] * 4)
    assert [(one.name, one.update) for one in all_warnings(entries, SETTINGS)] == [("kl", 3), ("kl", 11)]
    assert new_warnings(entries[:4], SETTINGS) == []


def test_what_was_not_asked_for_is_not_missed() -> None:
    far = log(6, kl_k1_nats=[50.0] * 6)
    assert names(far, Ppo(kind="ppo")) == []  # no target
    rising = [{name: value for name, value in entry.items() if name != "held_out_win_rate"} for entry in log(12)]
    assert names(rising) == []


def test_a_win_rate_that_rises_with_the_score_is_what_was_wanted() -> None:
    rates = [0.5, 0.5, 0.55, 0.55, 0.6, 0.6]
    assert names(log(6, score=[1.0, 1.0, 2.0, 2.0, 3.0, 3.0], held_out_win_rate=rates)) == []
    falling = [0.6, 0.6, 0.55, 0.55, 0.5, 0.5]
    assert names(log(6, score=[1.0, 1.0, 2.0, 2.0, 3.0, 3.0], held_out_win_rate=falling)) == ["overoptimised"]
    assert names(log(6, score=[1.0] * 6, held_out_win_rate=falling)) == []  # and a score that does not change misleads no user


# --------------------------------------------------------------------------------------------------- distillation

DISTILLED = OnPolicyDistil(kind="on_policy_distil")


def distilled(updates: int = 12, **columns: list[float]) -> list[dict[str, float]]:
    """The same of a student that is distilled on its own answers."""
    plain = {"entropy_nats": [2.0] * updates, "length_tokens": [20.0] * updates, "eos_rate": [0.9] * updates}
    return [{"update": n + 1, **{name: values[n] for name, values in (plain | columns).items()}} for n in range(updates)]


def test_a_distilled_run_that_goes_well_is_left_alone() -> None:
    assert all_warnings(distilled(), DISTILLED) == []


@pytest.mark.parametrize(
    ("name", "column", "values"),
    [
        ("entropy", "entropy_nats", [2.0, 2.0, 2.0, 0.3, 0.3, 0.3]),
        ("length", "length_tokens", [20.0, 20.0, 20.0, 40.0, 40.0, 40.0]),
        ("unended", "eos_rate", [0.9, 0.9, 0.9, 0.5, 0.5, 0.5]),
    ],
)
def test_a_distilled_student_is_warned_of_what_it_has(name: str, column: str, values: list[float]) -> None:
    (warning,) = all_warnings(distilled(len(values), **{column: values}), DISTILLED)
    assert warning.name == name
    assert "learning_rate" in warning.text
    assert not any(setting in warning.text for setting in ("kl_coefficient", "missing_eos_penalty", "reward"))
