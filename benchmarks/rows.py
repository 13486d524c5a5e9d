"""The rows, in the order in which they are run."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu_rows import gpu_rows
from benchmarks.measure import Row, Side
from benchmarks.student_rows import student_rows
from benchmarks.worlds import Rows, Shape, write_language_model, write_reward_model, write_share_reward_model

SMALL, LARGE = 2_048, 32_000
"""Vocabularies. With the large one the language-model head is most of the work of a small model, with the small one it is not."""


def all_rows(quick: bool) -> dict[str, Callable[[], Row]]:
    """Names and what makes each row; `quick` rows are tiny and only show that everything runs and agrees."""
    return dict(_rows(quick))


def _rows(quick: bool) -> Iterator[tuple[str, Callable[[], Row]]]:
    yield "ppo-same-rollouts", _ppo_same_rollouts
    for name, samples, critic, prompt, response in (
        ("ppo-1", 1, "separate", 64, 32),
        ("ppo-1-shared", 1, "shared", 64, 32),
        ("ppo-4", 4, "separate", 64, 32),
        ("ppo-4-256-64", 4, "separate", 256, 64),
    ):
        yield name, partial(_ppo, name, samples, critic, prompt, response, quick)
    for vocabulary in (SMALL, LARGE):
        for prompt, response in ((256, 64), (512, 128)):
            name = f"dpo-{prompt}-{response}-v{vocabulary}"
            yield name, partial(_dpo, name, vocabulary, prompt, response, quick)
    yield "dpo-defaults", partial(_dpo_defaults, quick)
    for vocabulary in (SMALL, LARGE):
        yield f"dpo-3-epochs-v{vocabulary}", partial(_dpo_three_epochs, vocabulary, quick)
    yield "reward-model", partial(_reward_model, quick)
    for vocabulary in (SMALL, LARGE):
        for objective in ("rrhf", "pro"):
            for k in (4, 8):
                name = f"{objective}-{k}-v{vocabulary}"
                yield name, partial(_ranking, name, objective, k, vocabulary, quick)
    for vocabulary in (SMALL, LARGE):
        yield f"sft-v{vocabulary}", partial(_supervised, vocabulary, quick)
    yield "candidates", partial(_candidates, quick)
    yield "reference-cache", partial(_reference_cache, quick)
    for vocabulary in (SMALL, LARGE):
        name = f"unfavourable-128-384-v{vocabulary}"
        yield name, partial(_dpo, name, vocabulary, 128, 384, quick)
    yield from student_rows(quick)
    yield from gpu_rows(quick)


# ------------------------------------------------------------------------------------------------------------------ PPO

WANTED_SHARE = 0.1
"""Of the vocabulary, pays; prompts hold none of it."""

PPO_SAYS = (
    "Same: initial policy, reference, reward model and critic (which begins as the reward model), prompts, episodes and optimiser "
    "steps per update, epochs, minibatches, response length, temperature 1, KL penalty, GAE, clipping, AdamW (epsilon 1e-5), "
    "constant learning rate, no gradient clipping (TRL's loop has none), float32. Not the same: the random numbers drawn, so also "
    "the responses (a seed per round), and TRL's value loss also counts the place behind an early end. TRL runs unpatched, with "
    "bf16 and checkpointing off and one rollout batch (its defaults are slower here). The reward model is a Llama of the policy's "
    "shape that by construction scores the share of a tenth of the vocabulary among the tokens read."
)

PPO_SHARED_SAYS = (
    "As `ppo-1`, but here the critic is a new head on the policy (`critic: shared`), which TRL does not offer: not the same work, "
    "so what counts is the reward reached."
)


def _write_ppo_world(folder: Path, shape: Shape, prompts: int, prompt_tokens: int) -> None:
    first_wanted = round(shape.vocabulary * (1 - WANTED_SHARE))
    write_language_model(folder / "policy", shape)
    write_share_reward_model(folder / "reward", shape, range(first_wanted, shape.vocabulary), scale=30.0)
    Rows(prompts, prompt_tokens, 2, 1, first_wanted).write(folder / "rows.jsonl")


def _ppo_same_rollouts() -> Row:
    """Whether both sides learn the same from the same answers."""
    return Row(
        name="ppo-same-rollouts",
        title="one PPO update (4 optimiser steps) on the same answers",
        make_world=lambda folder: _write_ppo_world(folder, Shape(512, hidden=64, layers=2), prompts=8, prompt_tokens=16),
        ours=Side("aligndistill", "ours", "ours_ppo:same_rollouts"),
        peers=[Side("TRL 1.12 PPOTrainer", "trl-1.12", "trl_ppo:same_rollouts")],
        settings={
            "samples_per_prompt": 1,
            "episodes": 8,
            "minibatches": 1,
            "ppo_epochs": 4,
            "kl_coefficient": 0.05,
            "learning_rate": 1e-3,
            "updates": 1,
            "warm_up": 0,
            "response_tokens": 12,
            "rollouts": "rollouts.json",
        },
        says=(
            "Compared are the policy and value losses, means over four epochs, and the last gradient norm. For this row TRL is "
            "patched: it is given our answers, and whitens by the population's variance as we do."
        ),
        timed=False,
    )


def _ppo(name: str, samples: int, critic: str, prompt_tokens: int, response_tokens: int, quick: bool) -> Row:
    shape = Shape(512, hidden=32, layers=2) if quick else Shape(SMALL)
    episodes = 8 if quick else 32
    updates = 12 if prompt_tokens == 64 else 8
    if quick:
        prompt_tokens, response_tokens, updates = prompt_tokens // 4, response_tokens // 4, 3
    settings = {
        "samples_per_prompt": samples,
        "episodes": episodes,
        "minibatches": 2,
        "ppo_epochs": 4,
        "kl_coefficient": 0.05,
        "learning_rate": 3e-3,
        "updates": updates,
        "warm_up": 1,
        "response_tokens": response_tokens,
        "critic": critic,
    }
    own_critic = critic == "separate"
    return Row(
        name=name,
        title=f"PPO update, {prompt_tokens}/{response_tokens} tokens, {episodes} episodes, {samples} per prompt"
        + ("" if own_critic else ", no second model as critic here"),
        make_world=lambda folder: _write_ppo_world(folder, shape, 2 * episodes, prompt_tokens),
        ours=Side("aligndistill", "ours", "ours_ppo:train"),
        peers=[Side("TRL 1.12 PPOTrainer", "trl-1.12", "trl_ppo:train", same_curve=False)],
        settings=settings,
        piece="update",
        aims=">= 2.5x samples/s at equal or better reward",
        says=PPO_SAYS if own_critic else PPO_SHARED_SAYS,
        most_rounds=2,  # each is a whole training
    )


# ------------------------------------------------------------------------------------------------ learning from rankings


def _steps(vocabulary: int) -> dict[str, int]:
    """Fewer where a step takes long."""
    return {"steps": 8, "warm_up": 2} if vocabulary == SMALL else {"steps": 4, "warm_up": 1}


def _offline(
    name: str,
    title: str,
    rows: Rows,
    settings: Mapping[str, Any],
    ours: str,
    peers: list[Side],
    quick: bool,
    *,
    piece: str = "step",
    aims: str = "",
    says: str = "",
) -> Row:
    """A row on a policy and a reward model with random weights, and rankings of random words."""
    shape = Shape(512, hidden=32, layers=2) if quick else Shape(rows.vocabulary)
    if quick:
        rows = Rows(rows.prompts, rows.prompt_tokens // 8, rows.response_tokens // 8, rows.k, shape.vocabulary, rows.mixed)

    def make_world(folder: Path) -> None:
        write_language_model(folder / "policy", shape)
        write_reward_model(folder / "reward", shape)
        rows.write(folder / "rows.jsonl")

    return Row(
        name=name,
        title=title,
        make_world=make_world,
        ours=Side("aligndistill", "ours", ours),
        peers=peers,
        settings={"learning_rate": 1e-4, **settings},
        piece=piece,
        aims=aims,
        says=says,
    )


DPO_SAYS = (
    "TRL computes the reference in every step; here it is computed in advance, once per row, and its time is added to the steps "
    "that use it (what is printed is a step of the first epoch)."
)


def _dpo(name: str, vocabulary: int, prompt: int, response: int, quick: bool) -> Row:
    batch = 1024 // (prompt + response) if vocabulary == LARGE else 2048 // (prompt + response)
    steps = _steps(vocabulary)
    favourable = ">= 2x" if vocabulary == SMALL else ">= 4x, <= 1/4 memory"
    return _offline(
        name,
        f"DPO, {prompt}/{response} tokens, vocabulary {vocabulary:,}",
        Rows(batch * steps["steps"], prompt, response, 2, vocabulary),
        {"batch": batch, "objective": "dpo", "options": {"beta": 0.1}, **steps},
        "ours_offline:policy",
        [Side("TRL 1.16 DPOTrainer, tuned", "trl-1.16", "trl_offline:dpo")],
        quick,
        aims=favourable if response < prompt else ">= 1.1x",
        says=DPO_SAYS,
    )


def _dpo_defaults(quick: bool) -> Row:
    return _offline(
        "dpo-defaults",
        "DPO, 256/64 tokens, vocabulary 2,048, TRL's defaults",
        Rows(3, 256, 64, 2, SMALL),
        {"batch": 1, "objective": "dpo", "options": {"beta": 0.1}, "steps": 3, "warm_up": 1},
        "ours_offline:policy",
        [Side("TRL 1.16 DPOTrainer, defaults", "trl-1.16", "trl_offline:dpo", {"defaults": True}, same_curve=False)],
        quick,
        says="TRL's defaults are bf16 and gradient checkpointing; bf16 is slow on many CPUs, so only the tuned rows say something.",
    )


def _dpo_three_epochs(vocabulary: int, quick: bool) -> Row:
    prompts, batch = (24, 4) if vocabulary == SMALL else (6, 2)
    return _offline(
        f"dpo-3-epochs-v{vocabulary}",
        f"DPO, three epochs, reference precomputed, 256/64 tokens, vocabulary {vocabulary:,}",
        Rows(prompts, 256, 64, 2, vocabulary),
        {
            "batch": batch,
            "objective": "dpo",
            "options": {"beta": 0.1},
            "steps": 3 * prompts // batch,
            "warm_up": 0,
            "whole": True,
            "precompute": True,
        },
        "ours_offline:policy",
        [Side("TRL 1.16 DPOTrainer, tuned", "trl-1.16", "trl_offline:dpo")],
        quick,
        piece="training",
        aims=">= 4.5x",
        says="The time of the precompute pass and of three epochs; loading and tokenising are left out on both sides.",
    )


def _reward_model(quick: bool) -> Row:
    return _offline(
        "reward-model",
        "reward model, rankings of 4, 512/128 tokens",
        Rows(2 * 6, 512, 128, 4, SMALL),
        {"batch": 2, "steps": 6, "warm_up": 2},
        "ours_offline:reward_model",
        [Side("TRL 1.16 RewardTrainer, tuned", "trl-1.16", "trl_offline:reward_model")],
        quick,
        aims=">= 5x",
        says="TRL gets each ranking's 6 pairs in one batch, which is the same loss.",
    )


def _ranking(name: str, objective: str, k: int, vocabulary: int, quick: bool) -> Row:
    batch = 2 if vocabulary == SMALL else 1
    steps = {"steps": 6, "warm_up": 2} if vocabulary == SMALL else {"steps": 3, "warm_up": 1}
    return _offline(
        name,
        f"{objective.upper()}, k = {k}, 512/128 tokens, vocabulary {vocabulary:,}",
        Rows(batch * steps["steps"], 512, 128, k, vocabulary),
        {"batch": batch, "objective": objective, **steps},
        "ours_offline:policy",
        [Side(f"naive {objective.upper()} step", "trl-1.16", "naive_ranking:train")],
        quick,
        aims=">= 3x, <= 1/3 memory",
        says="Naive: the algorithm of the paper's released code (k whole sequences, log-softmax of every position), written for "
        "this benchmark.",
    )


def _supervised(vocabulary: int, quick: bool) -> Row:
    steps, batch = _steps(vocabulary), 8 if vocabulary == SMALL else 4
    return _offline(
        f"sft-v{vocabulary}",
        f"SFT on responses only, up to 256/64 tokens of mixed length, vocabulary {vocabulary:,}",
        Rows(batch * steps["steps"], 256, 64, 1, vocabulary, mixed=True),
        {"batch": batch, "objective": "supervised", **steps},
        "ours_offline:policy",
        [Side("TRL 1.16 SFTTrainer, tuned", "trl-1.16", "trl_offline:supervised")],
        quick,
        aims=">= 1x",
        says="TRL without packing: it needs an attention for packed rows that a CPU does not have.",
    )


# ----------------------------------------------------------------------------------------------------------- inference


def _candidates(quick: bool) -> Row:
    return _offline(
        "candidates",
        "8 candidates per prompt with log-probs, 256/64 tokens, vocabulary 2,048",
        Rows(4, 256, 16, 1, SMALL),
        {"k": 8, "new_tokens": 8 if quick else 64, "repeats": 1 if quick else 3},
        "ours_sampling:candidates",
        [Side("transformers generate + re-score", "trl-1.16", "naive_sampling:candidates")],
        quick,
        piece="batch of 4 prompts",
        aims=">= 2.2x",
        says="Sampled at temperature 1 without top-k; compared are the log-probs of the greedy answers, which are the same tokens.",
    )


def _reference_cache(quick: bool) -> Row:
    return _offline(
        "reference-cache",
        "reference log-probs of 110 pairs, 100 of them known, 256/64 tokens, vocabulary 2,048",
        Rows(110, 256, 64, 2, SMALL),
        {"batch": 4},
        "ours_offline:reference_cache",
        [Side("TRL 1.16 precompute, cached", "trl-1.16", "trl_offline:reference_cache")],
        quick,
        piece="pass",
        aims=">= 8x",
        says="TRL's cache is for a whole data set: ten rows more and it computes all of them.",
    )
