"""Trains the same thing again and again, each time in a fresh process, and kills some of them: `python -m ... FOLDER`.

A process ends by a real SIGKILL, which it sends to itself so that the place is exact. Children are forked before anything has been
computed, so that the imports are done once for all.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aligndistill.config.models import Lora
from aligndistill.config.objectives import Dpo
from aligndistill.training import checkpointing as watched
from aligndistill.training.offline.policy import train_policy
from tests.tiny_models import ragged_rankings, ranking_examples, tiny_job, tiny_language_model

STEPS = 7  # in the middle of the fourth epoch of two steps each
LORA = Lora(r=2, lora_dropout=0.5)  # its randomness must be resumed, too


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_step_five() -> None:
    """Between the two micro-batches of the fifth step."""
    plain = watched.CheckpointedTrainer.training_step
    seen = []

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.state.global_step)
        if seen.count(4) == 2:
            kill()
        return plain(self, *args, **kwargs)

    watched.CheckpointedTrainer.training_step = training_step  # type: ignore[method-assign]


def before_the_manifest_of_six() -> None:
    """The checkpoint's files are all written, but not its manifest."""
    plain = watched.write_manifest

    def write_manifest(checkpoint: Path, *made_by: Any) -> None:
        if checkpoint.name == "checkpoint-6":
            kill()
        plain(checkpoint, *made_by)

    watched.write_manifest = write_manifest


def never() -> None:
    """Nothing happens."""


KILLS: dict[str, Callable[[], None]] = {"in_step_five": in_step_five, "before_the_manifest_of_six": before_the_manifest_of_six}


def train(folder: Path, lora: Lora | None, prepare: Callable[[], None], after: Callable[[], None]) -> None:
    prepare()
    policy = tiny_language_model()
    examples = ranking_examples(policy.conversation, ragged_rankings(), reference=tiny_language_model())
    runtime = {"per_device_train_batch_size": 2, "save_steps": 2, "logging_steps": 3}
    job = tiny_job(
        folder, runtime=runtime, batch_size=4, max_steps=STEPS, lr_scheduler_type="cosine", warmup_ratio=0.3, learning_rate=1e-2
    )
    trained = train_policy(policy, Dpo(kind="dpo"), lora, examples, job)
    after()
    weights = {name: value.tolist() for name, value in trained.trainer.model.named_parameters() if value.requires_grad}
    (folder / "result.json").write_text(json.dumps({"steps": trained.steps, "log": trained.log, "weights": weights}))


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
    import transformers.models.llama.modeling_llama  # noqa: F401

    codes: dict[str, list[int]] = {}
    for kind, lora, kills in (("full", None, KILLS), ("lora", LORA, {"in_step_five": in_step_five})):
        codes[f"{kind} uninterrupted"] = [in_a_child(folder / kind / "uninterrupted", lora, never, never)]
        for name, prepare in kills.items():
            runs = ((prepare, never), (never, never))
            codes[f"{kind} {name}"] = [in_a_child(folder / kind / name, lora, *run) for run in runs]
    runs = ((never, kill), (never, never))
    codes["full at_the_end"] = [in_a_child(folder / "full" / "at_the_end", None, *run) for run in runs]
    (folder / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
