"""Distillation on given responses: the losses of TRL 1.16's two trainers, inside the trainers themselves, and Liger's.

DistillationTrainer learns from what the student samples. Here the row's responses take the place of the samples, so that the time
is that of the loss. GKD divides the loss of sampled responses by the number of tokens that the data set's own responses have;
`sampled_count` shows that.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
from trl import DistillationConfig, DistillationTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer

from benchmarks.probe import Clock, Memory, training_round
from benchmarks.sides.trl_offline import trainer_arguments
from benchmarks.worlds import read_rows, words

IGNORED = -100


def _model(world: Path, name: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(world / name, dtype="float32")


class _GivenResponses(DistillationTrainer):  # type: ignore[misc]
    """What it would sample is read from the rows, which are all of one length."""

    rows: list[dict[str, Any]]

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Tensor]:
        rows = [self.rows[one["row"]] for one in generation_batch]
        prompt_ids, completion_ids = (torch.tensor(ids) for ids in ([r["prompt"] for r in rows], [r["responses"][0] for r in rows]))
        return {
            "prompt_ids": prompt_ids,
            "prompt_mask": torch.ones_like(prompt_ids),
            "completion_ids": completion_ids,
            "completion_mask": torch.ones_like(completion_ids),
            "num_items_in_batch": torch.tensor(float(completion_ids.numel())),
        }


def distillation_trainer(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training by DistillationTrainer's loss: vocabulary and positions in tiles."""
    memory = Memory()
    rows = read_rows(world / "rows.jsonl")
    with tempfile.TemporaryDirectory() as folder:
        arguments = trainer_arguments(settings, folder)
        del arguments["max_length"]
        trainer = _GivenResponses(
            model=_model(world, "policy"),
            teacher_model=_model(world, "teacher"),
            args=DistillationConfig(**arguments, beta=0.5, temperature=1.0, shuffle_dataset=False, remove_unused_columns=False),
            train_dataset=Dataset.from_list([{"prompt": words(row["prompt"]), "row": n} for n, row in enumerate(rows)]),
            processing_class=AutoTokenizer.from_pretrained(world / "policy"),
        )
        trainer.rows = rows
        Clock.reset()
        trainer.train()
    return training_round(settings["warm_up"], memory, settings["batch"])


def _collated(rows: list[dict[str, Any]], shown: float = 1.0) -> dict[str, Tensor]:
    """Prompts with responses, all of one length; labels on the last `shown` share of each response."""
    ids_BT = torch.tensor([[*row["prompt"], *row["responses"]] for row in rows])
    prompt, whole = len(rows[0]["prompt"]), ids_BT.shape[1]
    labels_BT = ids_BT.clone()
    labels_BT[:, : whole - round(shown * (whole - prompt))] = IGNORED
    mask_BT = torch.ones_like(ids_BT)
    return {
        "input_ids": ids_BT,
        "attention_mask": mask_BT,
        "labels": labels_BT,
        "prompts": ids_BT[:, :prompt],
        "prompt_attention_mask": mask_BT[:, :prompt],
    }


class _SampledResponses(GKDTrainer):  # type: ignore[misc]
    """What it would sample is in the batch already; its labels are the whole response then, as after sampling."""

    @staticmethod
    def generate_on_policy_outputs(model: Any, inputs: dict[str, Tensor], generation_config: Any) -> tuple[Tensor, Tensor, Tensor]:
        labels_BT = inputs["input_ids"].clone()
        labels_BT[:, : inputs["prompts"].shape[1]] = IGNORED
        return inputs["input_ids"], inputs["attention_mask"], labels_BT


class _Patched(_SampledResponses):
    """Divides by the tokens that the loss is of."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        return super().compute_loss(model, inputs, return_outputs, (inputs["labels"] != IGNORED).sum())


def gkd(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training by GKDTrainer on its own samples, which are the row's responses: whole logits of both models."""
    memory = Memory()
    rows = [{**row, "responses": row["responses"][0]} for row in read_rows(world / "rows.jsonl")]
    with tempfile.TemporaryDirectory() as folder:
        kind = _SampledResponses if settings.get("unpatched") else _Patched
        trainer = kind(
            model=_model(world, "policy"),
            teacher_model=_model(world, "teacher"),
            args=GKDConfig(**trainer_arguments(settings, folder), beta=0.5, lmbda=1.0, temperature=1.0),
            data_collator=lambda batch: _collated(batch, settings.get("shown", 1.0)),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(world / "policy"),
        )
        Clock.reset()
        trainer.train()
    return training_round(settings["warm_up"], memory, settings["batch"])


class _LigerTrainer(Trainer):  # type: ignore[misc]
    """Liger's fused loss at the response tokens, between the hidden states of both models."""

    def __init__(self, teacher: Any, loss: Any, **more: Any) -> None:
        super().__init__(**more)
        self.teacher, self.loss = teacher.eval(), loss

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        labels_BT = inputs["labels"][:, 1:]
        mask_BT = labels_BT != IGNORED
        with torch.no_grad():
            taught_BTD = self.teacher.model(**read, use_cache=False).last_hidden_state[:, :-1]
        states_BTD = model.model(**read, use_cache=False).last_hidden_state[:, :-1]
        heads = (model.lm_head.weight, self.teacher.lm_head.weight)
        return self.loss(states_BTD[mask_BT], heads[0], taught_BTD[mask_BT], heads[1], labels_BT[mask_BT])


def liger(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training by Liger's fused linear JSD, without its cross-entropy and without torch.compile."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss  # only here: it is in an environment of its own

    memory = Memory()
    rows = [{**row, "responses": row["responses"][0]} for row in read_rows(world / "rows.jsonl")]
    with tempfile.TemporaryDirectory() as folder:
        arguments = trainer_arguments(settings, folder)
        del arguments["max_length"]
        trainer = _LigerTrainer(
            _model(world, "teacher"),
            LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.5, compiled=False),
            model=_model(world, "policy"),
            args=TrainingArguments(**arguments, remove_unused_columns=False),
            data_collator=_collated,
            train_dataset=Dataset.from_list(rows),
        )
        Clock.reset()
        trainer.train()
    return training_round(settings["warm_up"], memory, settings["batch"])
