"""Candidates with log-probs as one gets them from transformers: `generate`, then a forward pass over what came out."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.probe import Memory
from benchmarks.worlds import END, PAD, read_rows


@torch.no_grad()
def candidates(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Some batches of sampled candidates, and the log-probs of greedy answers for comparison."""
    memory = Memory()
    model = AutoModelForCausalLM.from_pretrained(world / "policy", dtype="float32").eval()
    if torch.cuda.is_available():
        model.cuda()
    prompts = torch.tensor([row["prompt"] for row in read_rows(world / "rows.jsonl")], device=model.device)  # of one length

    def draw(k: int, **how: Any) -> tuple[Tensor, Tensor]:
        """log-probs (N, R) and which tokens exist."""
        rows = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=settings["new_tokens"],
            num_return_sequences=k,
            eos_token_id=END,
            pad_token_id=PAD,
            **how,
        )
        answers = rows[:, prompts.shape[1] :]
        ended = (answers == END).cumsum(-1)
        exists = (ended == 0) | ((ended == 1) & (answers == END))
        mask = torch.cat([torch.ones_like(prompts).repeat_interleave(k, 0), exists.long()], dim=-1)
        logits = model(input_ids=rows, attention_mask=mask, use_cache=False).logits[:, prompts.shape[1] - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(-1, answers.unsqueeze(-1)).squeeze(-1)
        return logprobs * exists, exists

    logprobs, exists = draw(1, do_sample=False)
    greedy = (logprobs.sum(-1) / exists.sum(-1)).tolist()
    seconds, tokens = [], []
    for repeat in range(settings["repeats"]):
        torch.manual_seed(1000 * settings["round"] + repeat)
        started = time.perf_counter()
        _, exists = draw(settings["k"], do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
        tokens.append(int(exists.sum()))
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": seconds,
        "samples": len(prompts) * settings["k"],
        "added_bytes": memory.added_bytes(),
        "losses": greedy,
        "tokens": tokens,
    }
