"""Trains on as many threads as the environment says, twice without a pause and once over a SIGKILL: `python -m ... FOLDER`.

Each in a process of its own, forked before anything has been computed, so that the imports are done once for all. The sizes make
torch share the work among threads: an operator over fewer than 32,768 numbers runs on one. And a hundred answers to one prompt make
the gradient of the prompt's last token a sum of a hundred terms, which is where an order of adding shows (see `logprobs.places`).
"""

import gc
import json
import sys
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import torch

from aligndistill.config.offline_objectives import Rrhf
from aligndistill.models.groups import TokenGroup
from aligndistill.training.offline.examples import Example
from aligndistill.training.offline.policy import train_policy
from tests.tiny_models import tiny_job, tiny_language_model
from tests.training.killing import Prepare, in_a_child, in_step, never
from tests.training.on_policy.tiny_ppo import tiny_ppo

STEPS = 8
KILL = in_step(6, micro_batch=1)
ANSWERS = 100
SIZES = {"hidden_size": 96, "intermediate_size": 128}
RUNTIME = {"save_steps": 2}


def rrhf(folder: Path) -> Any:
    random = Random(0)

    def ids(shortest: int, longest: int) -> list[int]:
        return [random.randrange(5, 300) for _ in range(random.randint(shortest, longest))]

    scores = [float(-number) for number in range(ANSWERS)]
    examples = [Example(TokenGroup(ids(8, 20), [ids(6, 12) for _ in scores]), scores) for _ in range(4)]
    job = tiny_job(folder, batch_size=1, max_steps=STEPS, runtime=RUNTIME)
    return train_policy(tiny_language_model(**SIZES), Rrhf(kind="rrhf"), None, examples, job).trainer


def ppo(folder: Path) -> Any:
    policy, reference = (tiny_language_model(**SIZES) for _ in range(2))
    job = {"batch_size": 1}
    ran = tiny_ppo(folder, policy=policy, reference=reference, samples_per_prompt=ANSWERS, ppo_epochs=4, runtime=RUNTIME, job=job)
    return ran.trained.trainer


def fingerprint(trainer: Any) -> str:
    found = sha256()
    for parameter in trainer.model.parameters():
        found.update(parameter.detach().numpy().tobytes())
    return found.hexdigest()


def train(what: str, folder: Path, prepare: Prepare) -> None:
    prepare()
    trainer = {"rrhf": rrhf, "ppo": ppo}[what](folder)
    result = {"weights": fingerprint(trainer), "steps": trainer.state.global_step, "threads": torch.get_num_threads()}
    (folder / "result.json").write_text(json.dumps(result))


def main(folder: Path) -> None:
    import deepspeed  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    gc.freeze()  # accelerate collects garbage at the start of each training
    codes: dict[str, list[int]] = {}
    for what in ("rrhf", "ppo"):
        for name, kills in (("first", [never]), ("again", [never]), ("killed", [KILL, never])):
            codes[f"{what} {name}"] = [in_a_child(train, what, folder / what / name, prepare) for prepare in kills]
    (folder / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
