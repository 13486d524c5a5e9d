"""`python -m benchmarks.memory`: the memory that `aligndistill plan` estimates for training, beside what training took.

Each case trains three steps in a process of its own, on rows of the greatest length. On a GPU the peak is torch's own count, on a
CPU the growth of the process's largest resident size since before its model was made. The table is written to
`benchmarks/results/memory.md`.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from aligndistill.commands.plan.memory import estimate, read_sharding, shape_of
from aligndistill.config.models import Lora
from aligndistill.config.offline_objectives import Pro
from aligndistill.config.run import Runtime
from aligndistill.config.training import Training
from aligndistill.models.from_scratch import train_tokenizer
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import wrap_language_model
from aligndistill.training.fit import TrainingJob
from aligndistill.training.offline.examples import Example
from aligndistill.training.offline.policy import train_policy

MIB = 2**20
RESPONSES = 2
TABLE = Path(__file__).parent / "results" / "memory.md"


@dataclass(frozen=True)
class Case:
    name: str
    hidden_size: int
    layers: int
    tokens: int
    per_device: int = 2
    lora: bool = False
    checkpointing: bool = False
    vocab_size: int = 8192


CASES = (
    Case("narrow", 256, 8, 128),
    Case("wide", 1024, 6, 128),
    Case("wide, lora", 1024, 6, 128, lora=True),
    Case("long rows", 512, 8, 512),
    Case("long rows, checkpointing", 512, 8, 512, checkpointing=True),
)


def measured_and_estimated(case: Case) -> tuple[int, int]:
    """Bytes."""
    torch.set_num_threads(1)
    sizes = {"hidden_size": case.hidden_size, "intermediate_size": 4 * case.hidden_size, "num_hidden_layers": case.layers}
    heads = case.hidden_size // 64
    config = Qwen2Config(
        **sizes, num_attention_heads=heads, num_key_value_heads=heads, vocab_size=case.vocab_size, max_position_embeddings=4096
    )
    settings = Training(
        batch_size=case.per_device, max_steps=3, max_prompt_tokens=case.tokens, max_response_tokens=case.tokens, learning_rate=1e-5
    )
    runtime = Runtime(per_device_train_batch_size=case.per_device, gradient_checkpointing=case.checkpointing)
    lora = Lora(r=16) if case.lora else None
    on_gpu = torch.cuda.is_available()
    plan = estimate(
        shape_of(config), settings, runtime, read_sharding(None), lora=lora, responses=RESPONSES, processes=1, bf16=on_gpu
    )
    ids = [5 + n % 200 for n in range(case.tokens)]
    group = TokenGroup(ids, [[*ids[:-1], 7 + k] for k in range(RESPONSES)])
    examples = [Example(group, [float(-k) for k in range(RESPONSES)])] * (3 * case.per_device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tokenizer = train_tokenizer(["some text"], 300, 4096)
    model = AutoModelForCausalLM.from_config(config)
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob("memory", settings, runtime, Path(folder), seed=0)
        train_policy(wrap_language_model(model, tokenizer, "chat"), Pro(kind="pro"), lora, examples, job)
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return peak, plan.gpu


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--case", help="one case, given as JSON: for this program itself")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measured_and_estimated(Case(**json.loads(arguments.case)))))
        return
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, one thread"
    lines = [
        f"`python -m benchmarks.memory` on {machine}, torch {torch.__version__}. "
        f"Micro-batches of prompts with {RESPONSES} responses each; tokens are those of a prompt, and of a response.",
        "",
        "| case | width | layers | prompts | tokens | measured, MiB | estimate, MiB | estimate / measured |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    for case in CASES:
        command = [sys.executable, "-m", "benchmarks.memory", "--case", json.dumps(asdict(case))]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        peak, plan = json.loads(answer.splitlines()[-1])
        shape = f"{case.hidden_size} | {case.layers} | {case.per_device} | {case.tokens}"
        lines.append(f"| {case.name} | {shape} | {peak / MIB:,.0f} | {plan / MIB:,.0f} | {plan / peak:.2f} |")
        print(lines[-1], flush=True)
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
