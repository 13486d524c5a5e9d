"""What differs between runs: settings, and each model's figures, paired over the prompts that both runs have.

The first run is the base. `aligndistill view` shows the same on a page.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aligndistill.commands.view.query import Index
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.config.load import load_config
from aligndistill.errors import ConfigError
from aligndistill.evaluation.intervals import Mean, paired_difference
from aligndistill.runs.yardsticks import Yardsticks, fingerprint_of, incomparable, yardsticks

COMPARED = ("truth", "win", "kl", "length", "reward")
"""Columns of the index: score by the truth function, win rate over the start, KL from the start (nats), tokens, reward."""
NOT_COMPARED = ("runtime", "name")
"""Sections that change no result."""
NOT_SET = "not set"

Figures = Mapping[str, Mapping[str, float | None]]
"""Prompt id -> measure -> value: a model's means over its answers to the prompt."""


def excluded_measures(runs: Sequence[RunFolder]) -> dict[str, str]:
    """The measures whose values mean something else in one of the runs, or may do so, and why."""
    read = [_yardsticks(run) for run in runs]
    excluded = incomparable([one or _without_judge(run) for run, one in zip(runs, read, strict=True)])
    if unread := [run.id for run, one in zip(runs, read, strict=True) if one is None]:
        excluded["win"] = (
            f"This version cannot read the config of {', '.join(unread)}, and so not who judged: win rates are not compared. "
            "`aligndistill check` says why."
        )
    return excluded


def _yardsticks(run: RunFolder) -> Yardsticks | None:
    """None if this version cannot read the run's config, which another version may have written."""
    try:
        config = load_config(run.path / "config.yaml")
    except ConfigError:
        return None
    return yardsticks(config, run.folders)


def _without_judge(run: RunFolder) -> Yardsticks:
    truth = (run.config.get("evaluation") or {}).get("truth")
    return Yardsticks(None, truth, fingerprint_of(run.folders, "reward_model"))


def notes(runs: Sequence[RunFolder], indexes: Sequence[Index]) -> Iterator[str]:
    """What cannot be compared, or only with care."""
    yield from excluded_measures(runs).values()
    if len({fingerprint_of(run.folders, "start") for run in runs}) > 1:
        yield "The starts differ: win rate and KL are each over the run's own start."
    held_out = [{row[0] for row in index.db.execute("select id from prompts where held_out")} for index in indexes]
    for run, prompts in zip(runs[1:], held_out[1:], strict=True):
        if prompts != held_out[0]:
            shared = len(prompts & held_out[0])
            yield f"{run.id} has other held-out prompts than {runs[0].id}: {shared} of {len(held_out[0])} are shared."
    for run, index in zip(runs, indexes, strict=True):
        alone = [name for name in index.models if not any(name in other.models for other in indexes if other is not index)]
        if alone:
            yield f"Only {run.id} has {', '.join(alone)}."


def settings(runs: Sequence[RunFolder]) -> Iterator[tuple[str, list[str]]]:
    """The keys whose values differ, with each run's value; a section that a run does not have is one key."""
    yield from differing([{key: value for key, value in run.config.items() if key not in NOT_COMPARED} for run in runs])


def differing(values: Sequence[Any], path: str = "") -> Iterator[tuple[str, list[str]]]:
    """The keys of configs whose values differ, with each one's value."""
    if all(isinstance(one, dict) for one in values):
        for key in dict.fromkeys(key for one in values for key in one):
            yield from differing([_set(one.get(key)) for one in values], f"{path}.{key}" if path else str(key))
    elif any(one != values[0] for one in values):
        yield path, [_written(one) for one in values]


def _set(value: Any) -> Any:
    """A setting; null, an empty list and a key that an earlier version did not write are the same: not set."""
    return NOT_SET if value is None or value == [] or value == {} else value


def _written(value: Any) -> str:
    """A value as a config has it; a section by its kind."""
    if isinstance(value, dict):
        kind = value.get("kind") or (value.get("objective") or {}).get("kind")
        return f"set ({kind})" if kind else "set"
    return value if isinstance(value, str) else json.dumps(value)


def figures(index: Index, model: str) -> Figures:
    """A model's figures; empty if the run has no such model."""
    if model not in index.models:
        return {}
    rows = index.db.execute(
        f"select p.id, {', '.join(COMPARED)} from cells c join prompts p on p.n = c.prompt where c.author = ?",
        (index.models[model],),
    )
    return {identity: dict(zip(COMPARED, values, strict=True)) for identity, *values in rows}


def difference(first: Figures, second: Figures, measure: str) -> Mean | None:
    """The mean of second less first over the prompts that have both, with its interval; None without such prompts."""
    return paired_difference(known(first, measure), known(second, measure))


def changed(first: Figures, second: Figures, measure: str) -> list[tuple[str, float, float]]:
    """Prompt, value in the first run and in the second, of the prompts that have both."""
    before, after = known(first, measure), known(second, measure)
    return [(prompt, before[prompt], after[prompt]) for prompt in sorted(before.keys() & after.keys())]


def known(of_model: Figures, measure: str) -> dict[str, float]:
    """The values of a measure by prompt, where it was measured."""
    return {prompt: value for prompt, values in of_model.items() if (value := values.get(measure)) is not None}


def shared_models(base: Index, others: Sequence[Index]) -> list[str]:
    """The models of the base that another run has, too."""
    return [name for name in base.models if any(name in other.models for other in others)]


def same_answers(model: str, one: RunFolder, other: RunFolder) -> bool:
    """Whether the model's answers are one artifact: the same model, asked the same."""
    found = fingerprint_of(one.folders, f"answers-{model}")
    return found is not None and found == fingerprint_of(other.folders, f"answers-{model}")
