"""Trains the same thing again and again, each time in a fresh process, and kills some of them: `python -m ... FOLDER`."""

import json
import sys
from pathlib import Path

from aligndistill.config.models import Lora
from aligndistill.config.offline_objectives import Dpo
from aligndistill.training.offline.policy import train_policy
from tests.tiny_models import ragged_rankings, ranking_examples, tiny_job, tiny_language_model
from tests.training.killing import Prepare, before_manifest, in_a_child, in_step, kill, never

STEPS = 7  # in the middle of the fourth epoch of two steps each
LORA = Lora(r=2, lora_dropout=0.5)  # its randomness must be resumed, too
KILLS = {"in_step_five": in_step(5, micro_batch=2), "before_the_manifest_of_six": before_manifest(6)}


def train(folder: Path, lora: Lora | None, prepare: Prepare, after: Prepare) -> None:
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


def main(folder: Path) -> None:
    # What training imports on its way, so that a child need not.
    import transformers.models.llama.modeling_llama  # noqa: F401

    codes: dict[str, list[int]] = {}
    for kind, lora, kills in (("full", None, KILLS), ("lora", LORA, {"in_step_five": KILLS["in_step_five"]})):
        codes[f"{kind} uninterrupted"] = [in_a_child(train, folder / kind / "uninterrupted", lora, never, never)]
        for name, prepare in kills.items():
            runs = ((prepare, never), (never, never))
            codes[f"{kind} {name}"] = [in_a_child(train, folder / kind / name, lora, *run) for run in runs]
    runs = ((never, kill), (never, never))
    codes["full at_the_end"] = [in_a_child(train, folder / "full" / "at_the_end", None, *run) for run in runs]
    (folder / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
