"""Trains what FOLDER/orders.json lists, one after the other, in the processes of whatever launcher started this.

An order: name, what (an objective, `supervised` or `reward_model`), and optionally zero (a file of configs/deepspeed/), per_device,
lora, save_steps, critic (of ppo; a shared one goes with minibatches and an adaptive KL penalty), folder (checkpoints; its own by
default), served (of ppo: the address of a server that samples), stop_at (the last rank gets SIGTERM in that step), uneven (the
head reads its positions in more chunks on the first rank than on the others), rows (of the data; 16, or 8 prompts).
The result is NAME.json: log, the saved model's weights (and those of projections beside it), the micro-batches each process saw,
how much of a teacher it kept at the end, or the error.
"""

import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from aligndistill.processes.deepspeed import choose_accelerator
from aligndistill.processes.ranks import is_main_process, world_size

choose_accelerator()

import torch  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification  # noqa: E402
from transformers.integrations.deepspeed import unset_hf_deepspeed_config  # noqa: E402

from aligndistill.config.models import Lora  # noqa: E402
from aligndistill.config.objectives import RolloutServer  # noqa: E402
from aligndistill.config.offline_objectives import BestOfN, Distil, Dpo, HiddenStates, Kto, Pro, Rrhf  # noqa: E402
from aligndistill.config.students import RewardTraining as RewardModelSettings  # noqa: E402
from aligndistill.errors import UserError  # noqa: E402
from aligndistill.models import logprobs  # noqa: E402
from aligndistill.models.load import ModelPointer, load_language_model  # noqa: E402
from aligndistill.models.reward import load_reward_model, new_reward_model  # noqa: E402
from aligndistill.models.vocabulary import SharedVocabulary  # noqa: E402
from aligndistill.processes import signals  # noqa: E402
from aligndistill.training.checkpointing import CheckpointedTrainer  # noqa: E402
from aligndistill.training.offline.distillation import LiveTeacher, save_projections, train_distilled  # noqa: E402
from aligndistill.training.offline.policy import train_policy  # noqa: E402
from aligndistill.training.offline.reward_model import length_term, train_reward_model  # noqa: E402
from aligndistill.training.on_policy.rollout_server import RolloutServerClient  # noqa: E402
from aligndistill.training.on_policy.weight_sync import ServedRollouts  # noqa: E402
from aligndistill.training.save import save_model  # noqa: E402
from tests.tiny_models import (  # noqa: E402
    ANSWERS,
    QUESTIONS,
    damped_adam,
    pairs,
    ragged_rankings,
    ranking,
    ranking_examples,
    tiny_job,
    tiny_language_model,
    write_tiny_model,
)
from tests.training.on_policy.tiny_distillation import tiny_distillation  # noqa: E402
from tests.training.on_policy.tiny_ppo import tiny_ppo  # noqa: E402

REPOSITORY = Path(__file__).parents[2]
OBJECTIVES: dict[str, Any] = {
    "supervised": "supervised",
    "dpo": Dpo(kind="dpo"),
    "rrhf": Rrhf(kind="rrhf"),
    "pro": Pro(kind="pro"),
    "best_of_n": BestOfN(kind="best_of_n"),
    "kto": Kto(kind="kto", beta=1.0),
}
RANK = int(os.environ.get("RANK", "0"))
seen: list[int] = []
stop_at: int | None = None


def watch_steps() -> None:
    """Note what each micro-batch holds (the sum of its ids), and signal ourselves where it was ordered."""
    plain = CheckpointedTrainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        seen.append(int(inputs["input_ids_NT"].sum()))
        if stop_at == self.state.global_step + 1 and world_size() - 1 == RANK:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, model, inputs, *rest, **more)

    CheckpointedTrainer.training_step = training_step  # type: ignore[method-assign]


def carry_out(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    global stop_at
    unset_hf_deepspeed_config()  # a run has one runtime.deepspeed, elsewhere: here the last order's must be forgotten
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    AcceleratorState._reset_state(reset_partial_state=True)
    seen.clear()
    stop_at = order.get("stop_at")
    signals.listen()
    what, lora = order["what"], Lora(r=2, lora_dropout=0.0) if order.get("lora") else None
    backbone = ModelPointer(path=str(folder / "backbone"), layout="chat")
    runtime = {
        "per_device_train_batch_size": order.get("per_device", 4),
        "deepspeed": str(REPOSITORY / f"configs/deepspeed/{order['zero']}.json") if order.get("zero") else None,
        "grace_seconds": 600,  # a signal of one order must not end another
        "save_steps": order.get("save_steps", 2 if "folder" in order else 4),  # of 4 steps, the last is saved anyway
        "logging_steps": order.get("logging_steps", 1),
    }
    job = tiny_job(
        folder / order.get("folder", order["name"]),
        runtime=runtime,
        batch_size=8,
        max_steps=4,
        lr_scheduler_type="cosine",
    )
    saved, projections = folder / f"{order['name']}-model", folder / f"{order['name']}-projections"
    rankings = [*ragged_rankings(), *pairs()]
    kept: dict[str, int] = {}
    logprobs.HEAD_ELEMENTS = 1 if order.get("uneven") and is_main_process() else 2**24
    if what == "ppo":
        critic = order.get("critic", "separate")
        adaptive = {"minibatches": 2, "ppo_epochs": 1, "kl_target": 0.5, "kl_horizon": 100, "normalise_rewards": True}
        more = adaptive if critic == "shared" else {"ppo_epochs": 2}
        settings = {"critic": critic, **more, "job": {"lr_scheduler_type": "cosine"}}
        where = {"backbone": folder / "backbone", "runtime": runtime, "lora": lora}
        if order.get("served"):
            server = RolloutServerClient(RolloutServer(base_url=order["served"], name="policy"))
            where["served"] = ServedRollouts(server, job.folder / "weights")
        trained = tiny_ppo(job.folder, updates=2, **where, **settings).trained
        save_model(trained, saved, backbone, lora is not None, AutoModelForCausalLM)
    elif what == "reward_model":
        reward_model = new_reward_model(backbone, seed=1)
        examples = ranking_examples(reward_model.conversation, rankings)
        debiased = RewardModelSettings(lora=lora, length_debiased=True)
        trained = train_reward_model(reward_model, debiased, examples, job, length_term(debiased, examples))
        save_model(trained, saved, backbone, lora is not None, AutoModelForSequenceClassification)
    elif what in ("distil", "distil_hidden"):
        policy = load_language_model(backbone)
        if what == "distil":
            teacher = tiny_language_model("qwen3", seed=1)
            objective = Distil(kind="distil", divergence="jsd", temperature=2.0, on="all")
        else:
            teacher = tiny_language_model("qwen3", seed=1, hidden_size=24, num_hidden_layers=3)
            hidden = HiddenStates(layers=((0, 0), (1, 2), (2, 3)), weight=1.0)
            objective = Distil(kind="distil", on="all", hidden=hidden)
        vocabulary = SharedVocabulary(frozenset({7}))
        examples = ranking_examples(policy.conversation, rankings)
        trained = train_distilled(policy, LiveTeacher(teacher, vocabulary), objective, lora, examples, job)
        save_projections(trained, projections)
        save_model(trained, saved, backbone, lora is not None, AutoModelForCausalLM)
        kept["layers"] = sum(parameter.numel() for parameter in teacher.model.model.layers.parameters())
        kept["head"] = teacher.model.get_output_embeddings().weight.numel()
    elif what == "on_policy_distil":
        policy, teacher = load_language_model(backbone), tiny_language_model("qwen3", seed=1)
        where = {
            "runtime": runtime,
            "lora": lora,
            "job": {"lr_scheduler_type": "cosine"},
            "vocabulary": SharedVocabulary(frozenset({7})),
        }
        budget = {"kl_budget": 1e6, "reference": None if lora else tiny_language_model(seed=2)}
        trained = tiny_distillation(
            job.folder, student=policy, teacher=teacher, updates=4, prompts=order.get("rows", 8), **where, **budget
        ).trained
        save_model(trained, saved, backbone, lora is not None, AutoModelForCausalLM)
    else:
        policy = load_language_model(backbone)
        if what == "supervised":
            rankings = [ranking(question, answer) for question in QUESTIONS for answer in ANSWERS[:2]]
        seeds = {"dpo": 0, "kto": 1}  # KTO's is another model: its baseline is above 0, and other in each process's share
        reference = tiny_language_model(seed=seeds[what]) if what in seeds else None
        examples = ranking_examples(policy.conversation, rankings[: order.get("rows")], reference, mismatched=what == "kto")
        trained = train_policy(policy, OBJECTIVES[what], lora, examples, job)
        save_model(trained, saved, backbone, lora is not None, AutoModelForCausalLM)
    result: dict[str, Any] = {"log": trained.log, "steps": trained.steps, "seen": list(seen), "kept": kept}
    if is_main_process():
        loaded = (load_reward_model if what == "reward_model" else load_language_model)(
            ModelPointer(path=str(saved), layout="chat")
        )
        assert sum(p.numel() for p in loaded.model.parameters()) > 1000  # on one process alone, with a sharded one still in memory
        weights = load_file(saved / "model.safetensors") | (load_file(projections) if projections.exists() else {})
        result["weights"] = {name: value.tolist() for name, value in weights.items()}
    return result


def main(folder: Path) -> None:
    watch_steps()
    torch.set_num_threads(1)
    if is_main_process():
        write_tiny_model(folder / "new", seed=0)
        (folder / "new").rename(folder / "backbone")
    else:
        while not (folder / "backbone").is_dir():
            pass
    for order in json.loads((folder / "orders.json").read_text()):
        gc.collect()
        gc.freeze()  # accelerate collects garbage at the start of each training, which takes long with so many modules
        try:
            with damped_adam():
                result = carry_out(folder, order)
        except UserError as error:
            result = {"error": str(error), "code": error.exit_code, "seen": list(seen)}
        (folder / f"{order['name']}.{RANK}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
