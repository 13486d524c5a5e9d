"""As `interrupted`, for PPO: `python -m tests.training.on_policy.interrupted_ppo FOLDER`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aligndistill.config.models import Lora
from aligndistill.training.on_policy import trainer as ppo
from tests.training.killing import Prepare, before_manifest, in_a_child, in_step, kill, never
from tests.training.on_policy.tiny_ppo import tiny_ppo

STEPS_PER_UPDATE = 4
UPDATES = 3
KINDS: dict[str, dict[str, Any]] = {
    "shared": {"critic": "shared"},
    "separate": {"critic": "separate", "critic_learning_rate": 3e-3},
    "lora": {"critic": "separate", "lora": Lora(r=2, lora_dropout=0.5)},
}


def between_updates() -> None:
    """The first update is over, the second one's answers are scored, and there was no step on them."""
    plain = ppo.PpoTrainer._experience

    def experience(self: Any, update: int) -> Any:
        made = plain(self, update)
        if update == 1:
            kill()
        return made

    ppo.PpoTrainer._experience = experience  # type: ignore[method-assign]


KILLS: dict[str, Prepare] = {
    "in_the_second_update": in_step(STEPS_PER_UPDATE + 3, micro_batch=2),
    "between_updates": between_updates,
    "before_the_manifest_of_the_second": before_manifest(2 * STEPS_PER_UPDATE),
}


def train(folder: Path, kind: str, prepare: Prepare) -> None:
    prepare()
    ran = tiny_ppo(
        folder,
        updates=UPDATES,
        minibatches=2,
        kl_target=0.5,
        kl_horizon=100,
        normalise_rewards=True,
        runtime={"per_device_train_batch_size": 2, "save_steps": 1},
        job={"learning_rate": 1e-2, "lr_scheduler_type": "cosine", "warmup_ratio": 0.3},
        **KINDS[kind],
    )
    result = {
        "steps": ran.trained.steps,
        "log": ran.trained.log,
        "weights": {name: value.tolist() for name, value in ran.weights.items()},
        "state": asdict(ran.trained.trainer.state_of_ppo),
        "last_answers": [rollout.responses for rollout in ran.rollouts[-1]],
    }
    (folder / "result.json").write_text(json.dumps(result))


def main(folder: Path) -> None:
    # What training imports on its way, so that a child need not.
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    codes: dict[str, list[int]] = {}
    for kind in KINDS:
        codes[f"{kind} uninterrupted"] = [in_a_child(train, folder / kind / "uninterrupted", kind, never)]
        for name in KILLS if kind == "shared" else ["in_the_second_update"]:
            codes[f"{kind} {name}"] = [in_a_child(train, folder / kind / name, kind, prepare) for prepare in (KILLS[name], never)]
    (folder / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
