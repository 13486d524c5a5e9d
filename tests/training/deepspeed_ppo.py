"""Two updates of PPO under whatever launcher started this: `... -m tests.training.deepspeed_ppo FOLDER [DEEPSPEED_CONFIG]`."""

import json
import sys
from pathlib import Path
from typing import Any

from aligndistill.training.distributed import choose_accelerator, is_main_process

choose_accelerator()

from transformers import AutoModelForCausalLM  # noqa: E402
from transformers.integrations.deepspeed import unset_hf_deepspeed_config  # noqa: E402

from aligndistill.training.save import save_model  # noqa: E402
from tests.training.tiny_ppo import Ran, tiny_ppo  # noqa: E402

SAVED = "model"


def train(folder: Path, deepspeed: str | None, updates: int, critic: str) -> Ran:
    settings: dict[str, Any] = {"minibatches": 2, "kl_target": 0.5, "kl_horizon": 100, "normalise_rewards": True}
    runtime = {"per_device_train_batch_size": 1, "save_steps": 2, "deepspeed": deepspeed}
    return tiny_ppo(folder, updates=updates, critic=critic, runtime=runtime, **settings)


def main(folder: Path, deepspeed: str | None) -> None:
    """Critics of both kinds; and once again in two goes, the second of which begins from the first one's checkpoint."""
    results = {}
    for name, critic, goes in (("separate", "separate", (2,)), ("shared", "shared", (2,)), ("resumed", "shared", (1, 2))):
        if name == "resumed" and deepspeed is None:
            continue
        for updates in goes:
            trained = train(folder / name, deepspeed, updates, critic).trained
            unset_hf_deepspeed_config()  # the second go stands for a new process
        save_model(trained, folder / name / SAVED, None, False, AutoModelForCausalLM)
        results[name] = {"log": trained.log, "processes": trained.trainer.accelerator.num_processes}
    if is_main_process():
        (folder / "result.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
