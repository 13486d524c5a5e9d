"""RRHF and PRO as the papers' released code computes them: k whole sequences, the prompt in each, a log-softmax of every position.

RRHF (GanjinZero/RRHF, `train.py`): one prompt at a time, its k sequences padded into one forward pass, log-softmax over the whole
vocabulary, a copy of it for the gather. PRO (`process_manager.py`): k forward passes one after the other, hidden states kept, each
with its own log-softmax. The losses are the papers' equations, which the released code departs from in places (it divides by padded
lengths); so they can be compared with ours number by number. Written here; nothing is taken from those repositories.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from benchmarks.probe import Clock, Memory, training_round, watch_every_trainer
from benchmarks.worlds import PAD, read_rows

watch_every_trainer()


class _Rows(Dataset[dict[str, Any]]):
    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """All sequences padded to the longest: ids, mask and labels (B, K, T); scores (B, K)."""
    width = max(len(row["prompt"]) + len(response) for row in rows for response in row["responses"])
    sequences = [[row["prompt"] + response for response in row["responses"]] for row in rows]
    labels = [[[-100] * len(row["prompt"]) + response for response in row["responses"]] for row in rows]

    def padded(of: list[list[list[int]]], filler: int) -> Tensor:
        return torch.tensor([[ids + [filler] * (width - len(ids)) for ids in row] for row in of])

    mask = [[[1] * len(ids) for ids in row] for row in sequences]
    return {
        "input_ids": padded(sequences, PAD),
        "attention_mask": padded(mask, 0),
        "labels": padded(labels, -100),
        "scores": torch.tensor([row["scores"] for row in rows]),
    }


def token_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """log-probs of the labels (N, T - 1), 0 where there is none, through a log-softmax of everything."""
    shifted, targets = logits[:, :-1].contiguous(), labels[:, 1:].clone()
    logprobs = torch.nn.functional.log_softmax(shifted, dim=-1)
    mask = targets != -100
    targets[~mask] = 0
    gathered = logprobs.clone().gather(dim=-1, index=targets.unsqueeze(-1)).squeeze(-1)
    return gathered * mask


class RrhfTrainer(Trainer):
    """RRHF, eq. 1 to 5."""

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **kwargs: Any) -> Tensor:
        """The loss of one prompt."""
        ids, mask, labels, scores = (inputs[name][0] for name in ("input_ids", "attention_mask", "labels", "scores"))
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        sums_K = token_logprobs(logits, labels).sum(-1)
        mean_K = sums_K / (labels != -100).sum(-1)
        gaps_KK = mean_K.unsqueeze(0) - mean_K.unsqueeze(1)
        worse_KK = scores.unsqueeze(0) < scores.unsqueeze(1)
        return gaps_KK.clamp(min=0)[worse_KK].sum() - sums_K[scores.argmax()]


class ProTrainer(Trainer):
    """PRO, with the rewards' differences as inverse temperatures."""

    sft_weight = 0.05

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **kwargs: Any) -> Tensor:
        """The mean loss of the batch's prompts, their candidates best first."""
        k = inputs["labels"].shape[1]
        sums, means = [], []
        for i in range(k):
            output = model(
                input_ids=inputs["input_ids"][:, i],
                attention_mask=inputs["attention_mask"][:, i],
                use_cache=False,
                output_hidden_states=True,
            )
            sums.append(token_logprobs(output.logits.contiguous(), inputs["labels"][:, i]).sum(-1))
            means.append(sums[-1] / (inputs["labels"][:, i] != -100).sum(-1))
        mean_BK, scores = torch.stack(means, 1), inputs["scores"]
        loss = mean_BK.new_zeros(())
        for i in range(k - 1):
            gaps = scores[:, i : i + 1] - scores[:, i + 1 :]
            own = mean_BK[:, i] * gaps.amax(dim=1)
            others = (mean_BK[:, i + 1 :] * gaps).exp().sum(-1)
            loss = loss - torch.log(own.exp() / (own.exp() + others)).mean()
        return loss - self.sft_weight * (k - 1) ** 2 * sums[0].mean()


def train(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training."""
    memory = Memory()
    is_rrhf = settings["objective"] == "rrhf"
    at_once = 1 if is_rrhf else settings["batch"]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            optim="adamw_torch",
            learning_rate=settings["learning_rate"],
            lr_scheduler_type="constant",
            warmup_steps=0,
            max_grad_norm=1.0,
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=settings["batch"] // at_once,
            max_steps=settings["steps"],
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            seed=0,
        )
        trainer = (RrhfTrainer if is_rrhf else ProTrainer)(
            model=AutoModelForCausalLM.from_pretrained(world / "policy", dtype="float32"),
            args=arguments,
            train_dataset=_Rows(read_rows(world / "rows.jsonl")),
            data_collator=collate,
        )
        trainer.model_accepts_loss_kwargs = False  # the loss is a mean over prompts, so micro-batches are averaged
        Clock.reset()
        trainer.train()
    return training_round(settings["warm_up"], memory, settings["batch"])
