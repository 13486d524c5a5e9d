"""The rows, in the order in which they are run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, Side
from benchmarks.worlds import Shape, write_language_model, write_rankings, write_share_reward_model


def all_rows(quick: bool) -> dict[str, Callable[[], Row]]:
    """Names and what makes each row; `quick` rows are tiny and only show that everything runs and agrees."""
    makers: dict[str, Callable[[], Row]] = {}
    for samples in (1, 4):
        makers[f"ppo-{samples}"] = partial(_ppo, samples, quick)
    return makers


# ------------------------------------------------------------------------------------------------------------------ PPO

WANTED_SHARE = 0.1
"""Of the vocabulary, pays; prompts hold none of it."""

PPO_SAYS = (
    "Same: initial policy, reference, reward model and critic (which begins as the reward model), prompts, episodes and optimiser "
    "steps per update, epochs, minibatches, response length, temperature 1, KL penalty, GAE, clipping, AdamW (epsilon 1e-5), constant "
    "learning rate, no gradient clipping (TRL's loop has none), float32. Not the same: the random numbers drawn, so also the responses "
    "(a seed per round), and TRL's value loss also counts the place behind an early end. TRL is given bf16 off, no checkpointing and one rollout batch (its defaults would be slower here)."
)


def _ppo(samples: int, quick: bool) -> Row:
    shape = Shape(512, hidden=32, layers=2) if quick else Shape(2048)
    settings = {
        "samples_per_prompt": samples,
        "episodes": 8 if quick else 32,
        "minibatches": 2,
        "ppo_epochs": 4,
        "kl_coefficient": 0.05,
        "learning_rate": 1e-3,
        "updates": 3 if quick else 16,
        "warm_up": 1,
        "prompt_tokens": 16 if quick else 64,
        "response_tokens": 8 if quick else 32,
    }

    def make_world(folder: Path) -> None:
        first_wanted = round(shape.vocabulary * (1 - WANTED_SHARE))
        write_language_model(folder / "policy", shape)
        write_share_reward_model(folder / "reward", shape, range(first_wanted, shape.vocabulary), scale=30.0)
        prompts = 2 * settings["episodes"]
        write_rankings(folder / "rows.jsonl", first_wanted, prompts, settings["prompt_tokens"], 2, 1)

    return Row(
        name=f"ppo-{samples}",
        title=f"PPO update, {settings['episodes']} episodes, {samples} per prompt",
        make_world=make_world,
        ours=Side("aligndistill", "ours", "ours_ppo:train"),
        peers=[Side("TRL 1.12 PPOTrainer", "trl-1.12", "trl_ppo:train", same_curve=False)],
        settings=settings,
        piece="update",
        aims=">= 2.5x samples/s at equal or better reward",
        says=PPO_SAYS,
    )
