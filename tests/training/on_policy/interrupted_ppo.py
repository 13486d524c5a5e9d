"""As `interrupted`, for PPO: `python -m tests.training.on_policy.interrupted_ppo FOLDER`."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aligndistill.config.models import Lora
from aligndistill.training import checkpointing as watched
from aligndistill.training.on_policy import trainer as ppo
from tests.training.offline.interrupted import kill, never
from tests.training.on_policy.tiny_ppo import tiny_ppo

STEPS_PER_UPDATE = 4
UPDATES = 3
KINDS: dict[str, dict[str, Any]] = {
    "shared": {"critic": "shared"},
    "separate": {"critic": "separate", "critic_learning_rate": 3e-3},
    "lora": {"critic": "separate", "lora": Lora(r=2, lora_dropout=0.5)},
}


def in_the_second_update() -> None:
    """Between the two micro-batches of its third step."""
    plain = watched.CheckpointedTrainer.training_step
    seen = []

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.state.global_step)
        if seen.count(STEPS_PER_UPDATE + 2) == 2:
            kill()
        return plain(self, *args, **kwargs)

    watched.CheckpointedTrainer.training_step = training_step  # type: ignore[method-assign]


def between_updates() -> None:
    """The first update is over, the second one's answers are scored, and there was no step on them."""
    plain = ppo.PpoTrainer._experience

    def experience(self: Any, update: int) -> Any:
        made = plain(self, update)
        if update == 1:
            kill()
        return made

    ppo.PpoTrainer._experience = experience  # type: ignore[method-assign]


def before_the_manifest_of_the_second() -> None:
    """The checkpoint's files are all written, but not its manifest."""
    plain = watched.write_manifest

    def write_manifest(checkpoint: Path, *made_by: Any) -> None:
        if checkpoint.name == f"checkpoint-{2 * STEPS_PER_UPDATE}":
            kill()
        plain(checkpoint, *made_by)

    watched.write_manifest = write_manifest


KILLS: dict[str, Callable[[], None]] = {
    "in_the_second_update": in_the_second_update,
    "between_updates": between_updates,
    "before_the_manifest_of_the_second": before_the_manifest_of_the_second,
}


def train(folder: Path, kind: str, prepare: Callable[[], None]) -> None:
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


def in_a_child(*arguments: Any) -> int:
    child = os.fork()
    if child == 0:
        try:
            train(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    # What training imports on its way, so that a child need not.
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    codes: dict[str, list[int]] = {}
    for kind in KINDS:
        codes[f"{kind} uninterrupted"] = [in_a_child(folder / kind / "uninterrupted", kind, never)]
        for name in KILLS if kind == "shared" else ["in_the_second_update"]:
            codes[f"{kind} {name}"] = [in_a_child(folder / kind / name, kind, prepare) for prepare in (KILLS[name], never)]
    (folder / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
