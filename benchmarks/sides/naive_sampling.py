"""Answers as one gets them from transformers: `generate`, and for log-probs a forward pass over what came out."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.probe import Memory, now
from benchmarks.worlds import END, PAD, read_rows

SAMPLED: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


@torch.no_grad()
def candidates(world: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Sampled candidates with log-probs for all prompts, some times over, and the log-probs of greedy answers for comparison.

    Settings: `k` per prompt (1), prompts `at_once` in a batch (all), `compared` prompts with a greedy answer (all), and `scored`:
    False leaves out the forward pass behind the sampled ones (True).
    """
    memory = Memory()
    model = AutoModelForCausalLM.from_pretrained(world / "policy", dtype=settings.get("dtype", "float32")).eval()
    if torch.cuda.is_available():
        model.cuda()
    prompts = [row["prompt"] for row in read_rows(world / "rows.jsonl")]

    def draw(count: int, k: int, scored: bool, **how: Any) -> tuple[list[float], int]:
        """The mean log-prob of each answer (nothing unless `scored`), and how many tokens they have."""
        means, tokens = [], 0
        at_once = settings.get("at_once", count)
        for start in range(0, count, at_once):
            ids, mask = left_padded(prompts[start : min(start + at_once, count)], model.device)
            rows = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=settings["new_tokens"],
                num_return_sequences=k,
                eos_token_id=END,
                pad_token_id=PAD,
                **how,
            )
            exists = existing(rows[:, ids.shape[1] :])
            tokens += int(exists.sum())
            if scored:
                logprobs = answer_logprobs(model, rows, mask.repeat_interleave(k, 0), exists)
                means += (logprobs.sum(-1) / exists.sum(-1)).tolist()
        return means, tokens

    compared = settings.get("compared", len(prompts))
    greedy, _ = draw(compared, 1, True, do_sample=False)  # also warms up
    seconds, tokens = [], []
    for repeat in range(settings["repeats"]):
        torch.manual_seed(1000 * settings["round"] + repeat)
        started = now()
        tokens.append(draw(len(prompts), settings.get("k", 1), settings.get("scored", True), **SAMPLED)[1])
        seconds.append(now() - started)
    return {
        "seconds": seconds,
        "samples": len(prompts) * settings.get("k", 1),
        "added_bytes": memory.added_bytes(),
        "losses": greedy,
        "tokens": tokens,
    }


def left_padded(prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, (N, P)."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask


def existing(answers: Tensor) -> Tensor:
    """Which tokens (N, R) come before an answer's end, or are it."""
    ended = (answers == END).cumsum(-1)
    return (ended == 0) | ((ended == 1) & (answers == END))


def answer_logprobs(model: Any, rows: Tensor, prompt_mask: Tensor, exists: Tensor) -> Tensor:
    """(N, R), 0 where there is no token."""
    mask = torch.cat([prompt_mask, exists.long()], dim=-1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    width = prompt_mask.shape[1]
    logits = model(input_ids=rows, attention_mask=mask, position_ids=positions, use_cache=False).logits[:, width - 1 : -1]
    logprobs = logits.float().log_softmax(-1).gather(-1, rows[:, width:].unsqueeze(-1)).squeeze(-1)
    return logprobs * exists
