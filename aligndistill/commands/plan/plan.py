"""`aligndistill plan`: the stages of a config, the requests that they would send, their cost and their memory."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import typer

from aligndistill.chat.http.budget import Spending
from aligndistill.commands.check.check import Findings, examine
from aligndistill.commands.output import print_json, terminal_width
from aligndistill.commands.plan.chats import Estimate
from aligndistill.commands.plan.memory import MemoryEstimate
from aligndistill.commands.plan.requests import planned_requests
from aligndistill.commands.plan.stage_memory import planned_memory
from aligndistill.commands.plan.stages import PlannedStage, planned_stages, stage_lines
from aligndistill.commands.plan.table import memory_lines, price_usd, request_lines, request_seconds
from aligndistill.config.budget import Budget
from aligndistill.config.load import ConfigFiles, LoadedConfig, as_config
from aligndistill.config.run import RunConfig
from aligndistill.errors import UserError
from aligndistill.pipeline import pipeline
from aligndistill.processes.progress import doing, hidden
from aligndistill.runs.make import not_run
from aligndistill.runs.servers import known_servers, spent_so_far
from aligndistill.stages.chains import with_models_of_runs


@dataclass(frozen=True)
class PlannedRequests:
    """The requests that an unfinished stage would send to one model. Counts are upper bounds unless `certain`.

    Attributes:
        server: the server's address; None for a model that runs here.
        prompts: number of prompts that the requests are about.
        verdicts: comparisons or grades, including cached ones; 0 if answers are sampled.
        cached: verdicts whose answer is cached.
        answer_tokens: an upper bound.
        exact_tokens: whether prompt tokens were counted with the model's tokenizer; else they are estimated by length.
        certain: whether the stage's inputs exist, so that only the lengths of answers are assumed.
        usd: an upper bound; None without a price in `budget.prices`.
        seconds: estimated at the server's concurrency and limits; None for a model that runs here.
    """

    stage: str
    model: str
    server: str | None
    prompts: int
    verdicts: int
    cached: int
    requests: int
    prompt_tokens: int
    answer_tokens: int
    exact_tokens: bool
    certain: bool
    usd: float | None
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """The plan of a run. `print(plan)` shows the output of `aligndistill plan`.

    Attributes:
        stages: all stages, in the order in which they run.
        requests: the requests of unfinished stages, by stage and model.
        no_estimate: why there is no estimate of the requests; None if there is one.
        memory: bytes that each training stage needs, by name, if the shape of its model is known.
        problems: what would stop the run, one line each, as `aligndistill check` says.
        text: the plan as tables.
    """

    stages: tuple[PlannedStage, ...]
    requests: tuple[PlannedRequests, ...]
    no_estimate: str | None
    memory: Mapping[str, MemoryEstimate]
    problems: tuple[str, ...]
    text: str = field(repr=False)

    def __str__(self) -> str:
        return self.text


def plan(config: RunConfig | ConfigFiles) -> Plan:
    """Plan a config, or the config in these files. Sends no requests, trains nothing and downloads nothing.

    Raises:
        ConfigError: the config cannot be used.
    """
    config = as_config(config)
    return _plan(config, examine(config))


def _plan(config: RunConfig, found: Findings, paths: bool = False, width: int | None = None) -> Plan:
    stages = pipeline(config).stages
    spent = spent_so_far(config.runtime.runs / config.name)
    estimates: list[tuple[str, Estimate]] = []
    no_estimate = None
    try:
        with hidden():
            estimates = planned_requests(config, stages, known_servers(config.runtime.runs / config.name))
    except UserError as error:
        no_estimate = str(error)
    ended = not_run(stages, config.runtime.store)
    planned = planned_stages(config, stages, ended, estimates, spent)
    memory = planned_memory(with_models_of_runs(config))
    lines = list(stage_lines(planned, paths, width))
    if no_estimate is not None:
        lines.append(f"\nNo estimate of the requests: {no_estimate}")
    if estimates:
        lines += request_lines(estimates, config.budget, spent, width)
    if memory:
        lines += memory_lines(memory, width)
    requests = tuple(_planned_requests(stage, one, config.budget, spent) for stage, one in estimates)
    return Plan(planned, requests, no_estimate, memory, found.errors, "\n".join(lines))


def print_plan(loaded: LoadedConfig, paths: bool = False, as_json: bool = False) -> None:
    """Print the plan of a config, and what would stop its run.

    Args:
        paths: show the folders of stages.
        as_json: print one JSON object instead.

    Raises:
        UserError: something would stop the run.
    """
    found = examine(loaded.config, loaded.where)
    found.show_warnings()
    try:
        with doing("counting what is left to do"):
            planned = _plan(loaded.config, found, paths, terminal_width())
        if as_json:
            print_json("plan", as_values(planned))
        else:
            typer.echo(planned)
    except UserError:
        if found.error is None:
            raise
    found.require_none()


def as_values(planned: Plan) -> dict[str, Any]:
    """The plan for JSON."""
    memory = {name: {**asdict(one), "peak": one.gpu} for name, one in planned.memory.items()}
    parts = {"stages": [asdict(one) for one in planned.stages], "requests": [asdict(one) for one in planned.requests]}
    return {**parts, "no_estimate": planned.no_estimate, "memory_bytes": memory, "problems": planned.problems}


def _planned_requests(stage: str, one: Estimate, budget: Budget, spent: list[Spending]) -> PlannedRequests:
    return PlannedRequests(
        stage=stage,
        model=one.model,
        server=", ".join(one.server.urls) if one.server else None,
        prompts=one.prompts,
        verdicts=one.verdicts,
        cached=one.cached,
        requests=one.asked.calls,
        prompt_tokens=one.asked.prompt_tokens,
        answer_tokens=one.asked.completion_tokens,
        exact_tokens=one.exact_tokens,
        certain=one.certain,
        usd=price_usd(one, budget),
        seconds=request_seconds(one, spent) if one.server else None,
    )
