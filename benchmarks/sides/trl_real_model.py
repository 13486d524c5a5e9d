"""TRL's DPOTrainer on the pairs of a run of `benchmarks/real_model.yaml`, measured on its held-out prompts.

`python -m benchmarks.sides.trl_real_model MODEL RUN FOLDER STUDENT SEED` prints one line of JSON.
"""

import json
import sys
import time
from statistics import fmean

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from aligndistill import open_run
from aligndistill.config.objectives import OfflineObjective
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import ModelPointer, load_language_model
from aligndistill.models.sampling import SampleRequest, sample
from aligndistill.models.scoring import kl_nats
from aligndistill.records import Prompt
from aligndistill.store.jsonl import read_jsonl
from benchmarks.sentiment import positive


def main(model: str, run: str, folder: str, student: str, seed: int) -> None:
    """Train, save, measure."""
    opened = open_run(run)
    settings, start = opened.config.students[student], opened.config.start
    assert isinstance(settings.objective, OfflineObjective) and start is not None and start.lora is not None  # noqa: PT018
    rows = [json.loads(line) for line in (opened.stages["rankings"] / "pairs.jsonl").open(encoding="utf-8")]
    tokenizer = AutoTokenizer.from_pretrained(model)
    # As the layout `transcript` writes them; TRL puts the end token behind an answer.
    pairs = Dataset.from_list(
        [
            {
                "prompt": f"\n\nHuman: {row['prompt']}\n\nAssistant:",
                "chosen": f" {row['chosen']}",
                "rejected": f" {row['rejected']}",
            }
            for row in rows
        ]
    )
    per_step = round(len(rows) / len({row["prompt"] for row in rows}) * settings.batch_size)
    arguments = DPOConfig(
        output_dir=folder,
        beta=settings.objective.beta,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_ratio,
        num_train_epochs=settings.num_train_epochs,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=max(1, per_step // 8),
        max_length=None,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
    )
    lora = LoraConfig(r=start.lora.r, lora_alpha=start.lora.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    policy = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    trainer = DPOTrainer(policy, args=arguments, train_dataset=pairs, processing_class=tokenizer, peft_config=lora)
    began = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - began
    trainer.model.merge_and_unload().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    truth, kl = measured(folder, model, list(read_jsonl(opened.stages["prompts"] / "prompts.jsonl", Prompt)), seed)
    print(json.dumps({"seconds_per_pair": seconds / len(rows), "truth": truth, "kl_nats": kl}))


def measured(folder: str, start: str, prompts: list[Prompt], seed: int) -> tuple[float, float]:
    """Mean reward of two answers to each held-out prompt, and KL(model || start) of an answer in nats."""
    policy = load_language_model(ModelPointer(path=folder, layout="transcript"))
    reference = load_language_model(ModelPointer(path=start, layout="transcript"), policy.tokenizer)
    conversation, held_out = policy.conversation, [prompt for prompt in prompts if prompt.split == "held_out"]
    rewards, groups = [], []
    for first in range(0, len(held_out), 32):
        requests = [
            SampleRequest(conversation.prompt_ids(prompt.messages), prompt.id, (0, 1)) for prompt in held_out[first : first + 32]
        ]
        for request, drawn in zip(requests, sample(policy, requests, temperature=1.0, max_new_tokens=16, seed=seed), strict=True):
            rewards += positive("", [conversation.response_text(request.prompt, one.ids) for one in drawn])
            groups.append(TokenGroup(request.prompt, [one.ids for one in drawn]))
    return fmean(rewards), fmean(value for row in kl_nats(policy, reference, groups, 32) for value in row)


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]))
