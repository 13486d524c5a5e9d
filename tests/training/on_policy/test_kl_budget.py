"""`kl_budget` in on-policy distillation. PPO's is tested in `test_trainer.py`."""

from pathlib import Path
from typing import Any

import pytest
import torch

from aligndistill.config.models import Lora
from aligndistill.errors import TrainingError
from aligndistill.models.load import LanguageModel
from aligndistill.training.checkpoints import all_checkpoints
from tests.tiny_models import tiny_language_model, tiny_model
from tests.training.on_policy.tiny_distillation import Distilled, tiny_distillation

SETTINGS: dict[str, Any] = {"job": {"learning_rate": 1e-2}, "runtime": {"save_steps": 1}}
LORA = Lora(r=4, lora_alpha=8)


def run(folder: Path, lora: Lora | None, **more: Any) -> Distilled:
    """With adapters, the reference is the student without them."""
    reference: LanguageModel | None = None if lora else tiny_language_model(seed=0)
    return tiny_distillation(folder, lora=lora, reference=reference, **{"kl_budget": 1e6, **SETTINGS, **more})


@pytest.fixture(scope="module", params=[None, LORA], ids=["all", "lora"])
def lora(request: pytest.FixtureRequest) -> Lora | None:
    found: Lora | None = request.param
    return found


@pytest.fixture(scope="module")
def unbounded(lora: Lora | None, tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    return run(tmp_path_factory.mktemp("unbounded"), lora, updates=4)


def kls(ran: Distilled) -> list[float]:
    """Before each update."""
    found = [entry["kl_k1_nats"] for entry in ran.trained.log]
    assert found[0] == pytest.approx(0, abs=1e-4)
    assert found[0] < found[1] < found[2] < found[3]
    return found


def require_equal(one: Distilled, other: Distilled) -> None:
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())


def test_kl_is_the_mean_over_answers_of_the_log_ratio_to_the_reference(tmp_path: Path) -> None:
    """By plain forward passes; the reference is another model than the student."""
    ran = tiny_distillation(tmp_path, reference=tiny_language_model(seed=2), kl_budget=1e6, updates=1)
    found = []
    for prompt, samples in ran.answers[0]:
        for one in samples:
            ids, before = torch.tensor([prompt.ids + one.ids]), len(prompt.ids)
            logps = []
            for seed in (0, 2):
                with torch.no_grad():
                    logps_TV = tiny_model(seed=seed)(input_ids=ids).logits[0, before - 1 : -1].log_softmax(-1)
                logps.append(float(logps_TV.gather(-1, ids[0, before:].unsqueeze(-1)).sum()))
            found.append(logps[0] - logps[1])
    assert ran.trained.log[0]["kl_k1_nats"] == pytest.approx(sum(found) / len(found), rel=1e-4)


def test_a_budget_ends_the_run_at_the_last_checkpoint_inside_it(unbounded: Distilled, lora: Lora | None, tmp_path: Path) -> None:
    kl = kls(unbounded)
    plain = tiny_distillation(tmp_path / "plain", lora=lora, updates=4, **SETTINGS)
    require_equal(unbounded, plain)  # what is measured changes nothing
    budget = (kl[2] + kl[3]) / 2
    bounded = run(tmp_path / "budget", lora, updates=4, kl_budget=budget)
    assert bounded.trained.steps == 2  # the policy after three updates was past it
    assert [entry["update"] for entry in bounded.trained.log] == [1, 2]
    two_updates = run(tmp_path / "two", lora, updates=2)
    require_equal(bounded, two_updates)
    again = run(tmp_path / "budget", lora, updates=4, kl_budget=budget)  # from its newest checkpoint, which is past the budget
    assert again.trained.steps == 2
    require_equal(again, two_updates)


def test_the_last_policy_is_held_to_the_budget_too(unbounded: Distilled, lora: Lora | None, tmp_path: Path) -> None:
    kl = kls(unbounded)
    assert run(tmp_path / "budget", lora, updates=3, kl_budget=(kl[2] + kl[3]) / 2).trained.steps == 2
    assert run(tmp_path / "inside", lora, updates=3, kl_budget=kl[3] * 2).trained.steps == 3


def test_a_budget_that_no_checkpoint_kept_says_so(unbounded: Distilled, lora: Lora | None, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"after 1 updates KL was .* nats per answer, above kl_budget .*Lower learning_rate"):
        run(tmp_path, lora, updates=4, kl_budget=kls(unbounded)[1] / 2)
    assert [path.name for path in all_checkpoints(tmp_path)] == ["checkpoint-1"]


def test_checkpoints_to_return_to_are_kept_whatever_the_runtime_says(tmp_path: Path) -> None:
    ran = run(tmp_path, None, updates=20, runtime={"save_steps": 1000, "save_total_limit": 1})
    assert ran.trained.trainer.args.save_steps == 2
    assert [path.name for path in all_checkpoints(tmp_path)] == ["checkpoint-18", "checkpoint-20"]
