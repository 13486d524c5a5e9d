"""SimPO, ORPO and KTO by TRL 1.16's trainers."""

import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from benchmarks.probe import Clock, Memory, training_round
from benchmarks.sides.trl_offline import preferences, trainer_arguments
from benchmarks.worlds import read_rows, words

LONGEST = 8192


def _pairs(world: Path, settings: dict[str, Any], trainer_class: Any, config_class: Any, **options: Any) -> dict[str, Any]:
    """One training by a trainer of pairs."""
    memory = Memory()
    rows = read_rows(world / "rows.jsonl")
    with tempfile.TemporaryDirectory() as folder:
        arguments = trainer_arguments(settings, folder) | {"max_length": LONGEST}
        trainer = trainer_class(
            model=AutoModelForCausalLM.from_pretrained(world / "policy", dtype="float32"),
            args=config_class(**arguments, **options),
            train_dataset=preferences(rows, settings["round"]),
            processing_class=AutoTokenizer.from_pretrained(world / "policy"),
        )
        for row, ours in zip(trainer.train_dataset, rows, strict=True):
            assert [row["prompt_input_ids"], row["chosen_input_ids"], row["rejected_input_ids"]] == [
                ours["prompt"],
                *(ours["prompt"] + response for response in ours["responses"]),
            ]
        Clock.reset()
        trainer.train()
    return training_round(settings["warm_up"], memory, settings["batch"])


def simpo(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training by CPOTrainer with SimPO's loss, without its NLL term."""
    beta = settings["options"]["beta"]
    gamma = beta * settings["options"]["gamma_beta_ratio"]
    return _pairs(world, settings, CPOTrainer, CPOConfig, loss_type="simpo", cpo_alpha=0.0, beta=beta, simpo_gamma=gamma)


class _OrpoOfResponses(ORPOTrainer):  # type: ignore[misc]
    """Its NLL is of the response, as ours, not of prompt and response; the same arrays are computed."""

    def concatenated_forward(self, model: Any, batch: Any) -> tuple[Any, ...]:
        rows = self.concatenated_inputs(batch, padding_value=self.padding_value, device=self.accelerator.device)
        count, labels_BT = len(batch["chosen_labels"]), rows["concatenated_labels"]
        mask_BT = rows["concatenated_attention_mask"]
        logits_BTV = model(rows["concatenated_input_ids"], attention_mask=mask_BT, use_cache=False).logits
        best_BTV, best_labels_BT = logits_BTV[:count, :-1].contiguous(), labels_BT[:count, 1:].contiguous()
        nll = cross_entropy(best_BTV.flatten(0, 1), best_labels_BT.flatten())
        logps_B = self.get_batch_logps(logits_BTV, labels_BT, average_log_prob=True)
        return logps_B[:count], logps_B[count:], logits_BTV[:count, :-1], logits_BTV[count:, :-1], nll


def orpo(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training by ORPOTrainer, its NLL over the response alone unless its own is asked for."""
    kind = ORPOTrainer if settings.get("unpatched") else _OrpoOfResponses
    return _pairs(world, settings, kind, ORPOConfig, beta=settings["options"]["odds_weight"])


def kto(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One training by KTOTrainer. Its mismatched pairs are ours, each of them for both responses of its prompt: the same mean."""
    memory = Memory()
    rows = read_rows(world / "rows.jsonl")
    unpaired = [
        {"prompt": words(row["prompt"]), "completion": " " + words(response[:-1]), "label": good, "round": settings["round"]}
        for row in rows
        for response, good in zip(row["responses"], (True, False), strict=True)
    ]
    others = [rows[(n + 1) % len(rows)]["responses"][n % 2] for n in range(len(rows)) for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = KTOTrainer(
            model=AutoModelForCausalLM.from_pretrained(world / "policy", dtype="float32"),
            ref_model=AutoModelForCausalLM.from_pretrained(world / "policy", dtype="float32"),
            args=KTOConfig(**trainer_arguments(settings, folder, per_prompt=2), beta=settings["options"]["beta"]),
            train_dataset=Dataset.from_list(unpaired),
            processing_class=AutoTokenizer.from_pretrained(world / "policy"),
        )
        data = trainer.train_dataset.remove_columns("KL_completion_ids").add_column("KL_completion_ids", others)
        for row, ours in zip(data.select(range(0, len(data), 2)), rows, strict=True):
            assert [row["prompt_ids"], row["completion_ids"]] == [ours["prompt"], ours["responses"][0]]
        trainer.train_dataset = data
        Clock.reset()
        trainer.train()
    return training_round(settings["warm_up"], memory, settings["batch"])
