"""The rows for a GPU. With `--quick` they are tiny, and on the CPU in float32."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.flops import dpo_flops, generation_flops
from benchmarks.measure import TOLERANCE, Row, Side
from benchmarks.worlds import Rows, Shape, read_rows, write_language_model

QWEN_HALF_B = Shape(151_936, hidden=896, layers=24, heads=14, key_value_heads=2, intermediate=4_864, tied=True)
"""Qwen2.5-0.5B's sizes."""
LLAMA_8B = Shape(128_256, hidden=4_096, layers=32, heads=32, key_value_heads=8, intermediate=14_336)
"""Llama-3.1-8B's sizes."""
TINY = Shape(512, hidden=64, layers=2, heads=4, key_value_heads=2, intermediate=160)

BF16_TOLERANCE = 2e-2
"""bfloat16 has 8 bits: the same sum in another order differs in the third digit."""

DPO_SAYS = (
    "Trained under autocast to bfloat16 on both sides, all {batch} pairs in one micro-batch, no checkpointing in what is tuned. "
    "Our reference is computed in advance, once per row, under autocast, too; its time is added to the steps that use it."
)


def gpu_rows(quick: bool) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Names and what makes each row."""
    yield "gpu-dpo-0.5b", partial(_dpo_full, quick)
    yield "gpu-dpo-lora-7b", partial(_dpo_lora, quick)
    yield "gpu-generate-0.5b", partial(_generate, quick)


def _tiny(tied: bool) -> Shape:
    return Shape(**{**vars(TINY), "tied": tied})


def _dpo_full(quick: bool) -> Row:
    # What checks that both learn the same needs steps that do not blow up the noise of bfloat16: a usual rate for DPO.
    settings = {"batch": 16, "learning_rate": 1e-6, "dtype": "float32"}
    live = Side("TRL 1.16 DPOTrainer, tuned", "trl-1.16", "trl_offline:dpo")
    precomputed = Side("TRL 1.16 DPOTrainer, tuned, reference precomputed", "trl-1.16", "trl_offline:dpo", {"precompute": True})
    # On a CPU TRL's defaults are another work: bfloat16.
    defaults = Side("TRL 1.16 DPOTrainer, defaults", "trl-1.16", "trl_offline:dpo", {"defaults": True}, same_curve=not quick)
    return _dpo(
        "gpu-dpo-0.5b",
        "DPO, 0.5B, all weights, 512/128 tokens",
        QWEN_HALF_B,
        settings,
        [live, precomputed, defaults],
        quick,
        aims=">= 1.6x tuned; >= 2.5x the defaults at <= 0.6x their memory",
        says=DPO_SAYS.format(batch=settings["batch"])
        + " TRL tuned is there with a live reference, which needs a second model, and "
        "with a precomputed one, its time added likewise; the faster one counts. TRL's defaults: live, with checkpointing.",
    )


def _dpo_lora(quick: bool) -> Row:
    settings = {"batch": 4, "learning_rate": 1e-5, "dtype": "bfloat16", "lora": {"r": 16, "lora_alpha": 32}}
    return _dpo(
        "gpu-dpo-lora-7b",
        "DPO, 8B, adapters of rank 16 on all linear layers, 512/128 tokens",
        LLAMA_8B,
        settings,
        [Side("TRL 1.16 DPOTrainer, tuned", "trl-1.16", "trl_offline:dpo")],
        quick,
        aims=">= 1.5x, share >= 45 %",
        says=DPO_SAYS.format(batch=settings["batch"]) + " Weights in bfloat16, adapters in float32. TRL's reference is live: the "
        "model without its adapters, so precomputing it would save neither time nor memory in one epoch.",
    )


def _dpo(
    name: str, title: str, shape: Shape, settings: dict[str, object], peers: list[Side], quick: bool, *, aims: str, says: str
) -> Row:
    prompt, response, steps = 512, 128, 8
    if quick:
        shape, prompt, response = _tiny(shape.tied), 64, 16
        settings = {**settings, "batch": 2, "learning_rate": 1e-4, "dtype": "float32"}
    batch = settings["batch"]
    assert isinstance(batch, int)
    rows = Rows(batch * steps, prompt, response, 2, shape.vocabulary)

    def make_world(folder: Path) -> None:
        write_language_model(folder / "policy", shape, dtype=str(settings["dtype"]))
        rows.write(folder / "rows.jsonl")

    def flops(folder: Path) -> float:
        return sum(dpo_flops(shape, row, "lora" in settings) for row in read_rows(folder / "rows.jsonl")) / steps

    return Row(
        name=name,
        title=title,
        make_world=make_world,
        ours=Side("aligndistill", "ours", "ours_offline:policy"),
        peers=peers,
        settings={"objective": "dpo", "options": {"beta": 0.1}, "steps": steps, "warm_up": 2, **settings},
        aims=aims,
        says=says,
        gpu=True,
        tolerance=TOLERANCE if quick else BF16_TOLERANCE,
        flops=flops,
    )


def _generate(quick: bool) -> Row:
    shape, dtype, prompts, longest, new_tokens = QWEN_HALF_B, "bfloat16", 512, 256, 128
    if quick:
        shape, dtype, prompts, longest, new_tokens = _tiny(tied=True), "float32", 8, 32, 8

    def make_world(folder: Path) -> None:
        write_language_model(folder / "policy", shape, dtype=dtype)
        Rows(prompts, longest, 2, 1, shape.vocabulary, least_prompt_tokens=longest // 2).write(folder / "rows.jsonl")

    def flops(folder: Path) -> float:
        return sum(generation_flops(shape, len(row["prompt"]), new_tokens) for row in read_rows(folder / "rows.jsonl"))

    return Row(
        name="gpu-generate-0.5b",
        title=f"{prompts} answers of {new_tokens} tokens to prompts of {longest // 2} to {longest}, 0.5B",
        make_world=make_world,
        ours=Side("aligndistill", "ours", "ours_sampling:candidates"),
        peers=[Side("transformers generate", "trl-1.16", "naive_sampling:candidates", {"scored": False})],
        settings={"new_tokens": new_tokens, "at_once": prompts, "compared": 8, "repeats": 3, "dtype": dtype, "compiled": True},
        piece="pass over all prompts",
        aims=">= 4x",
        says=(
            "Sampled at temperature 1 without top-k, all prompts in one batch on both sides (`at_once`), "
            "here with a compiled step, compiled in advance. Compared are the mean "
            "log-probs of eight greedy answers, which in bfloat16 need not be the same tokens to their end. An answer that ends "
            "early is counted at its full length: with random weights one in a thousand does."
        ),
        gpu=True,
        tolerance=TOLERANCE if quick else BF16_TOLERANCE,
        flops=flops,
    )
