"""Rules for repeated rounds."""

import re
from collections.abc import Iterator

from aligndistill.config.objectives import Grpo, Rloo
from aligndistill.config.problems import Problem, did_you_mean
from aligndistill.config.rounds import Rounds
from aligndistill.config.run import RunConfig


def rounds(config: RunConfig, rounds: Rounds) -> Iterator[Problem]:
    """Repeated rounds: what the next one starts from, and what tells whether it is worth it."""
    if rounds.promotes not in config.students:
        known = ", ".join(config.students) or "none"
        text = f"there is no student '{rounds.promotes}'{did_you_mean(rounds.promotes, config.students)} (known: {known})"
        yield Problem(("rounds", "promotes"), text)
    if config.judge is None or config.prompts is None:
        yield Problem(("rounds",), "every round judges new answers: this needs 'prompts' and a 'judge'")
        return
    if "start" not in config.candidates.authors:
        yield Problem(("candidates", "from"), "with 'rounds', the student of the round before writes in place of 'start': add it")
    if config.evaluation.judge is None:
        yield Problem(("evaluation", "judge"), "rounds are compared by a judge: set this to 'same', or give another one")
    growth, longest = rounds.stop.length_growth if rounds.stop else None, config.answer_sampling.max_new_tokens
    if growth is not None and growth >= longest:
        text = f"answers have 1 to {longest} tokens (max_new_tokens), so none is {growth:g} times as long as the start's"
        yield Problem(("rounds", "stop", "length_growth"), f"{text}: lower this, or set it to null")
    if config.start is not None and config.start.quantize is not None and config.start.quantize.export == "adapter":
        text = "the next round cannot train new adapters on a model saved as adapters: set export to 'merged'"
        yield Problem(("start", "quantize", "export"), text)
    yield from _held_to_another_reference(config, rounds)
    for name in config.students:
        if re.search(r"-r\d+$", name):
            yield Problem(("students", name), "names that end in -r and a number are those of later rounds: choose another")


def _held_to_another_reference(config: RunConfig, rounds: Rounds) -> Iterator[Problem]:
    """TRL's trainers measure KL from the model that they train, as it was: the round's own start."""
    if rounds.reference != "start":
        return
    for name, student in config.students.items():
        objective = student.objective
        if isinstance(objective, Grpo | Rloo) and objective.kl_coefficient > 0:
            text = f"{objective.kind} is held to the round's own start, and rounds.reference is 'start'"
            advice = "set this to 0, set rounds.reference to 'previous', or use ppo"
            yield Problem(("students", name, "objective", "kl_coefficient"), f"{text}: {advice}")
