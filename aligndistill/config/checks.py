"""Rules between sections, which a single section cannot check."""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from aligndistill.config import (
    author_checks,
    elicitation_checks,
    filter_checks,
    label_checks,
    reward_checks,
    round_checks,
    teacher_checks,
)
from aligndistill.config.judges import Judge, JudgeSection
from aligndistill.config.models import EndpointModel, FunctionModel, Teacher
from aligndistill.config.objectives import OnPolicy, Ppo
from aligndistill.config.offline_objectives import LEAST_PROMPTS, BestOfN, Kto
from aligndistill.config.problems import Problem, no_such_model
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import KeyPath, marks, model_uses, sections_in
from aligndistill.config.section import NAME_PATTERN, ReadsFile

_RESERVED = {"models": ("prompts", "rankings", "reference"), "students": ("prompts", "rankings")}
"""Names of the inputs of stages: `reference` is the model that a student's objective compares it with."""

_NAME_BYTES, _PATH_BYTES = 255, 4095
"""The longest name of a file, and the longest path."""

_SCRATCH_ADVICE = "its tokenizer is trained on the demonstrations"


def check(config: RunConfig) -> Iterator[Problem]:
    """Inconsistencies in a valid `RunConfig`, each with the key to change and what to do."""
    yield from _data(config)
    yield from reward_checks.rewards(config)
    for path, judge in reward_checks.judges(config):
        yield from _judge(config, judge, path)
    yield from _kto(config)
    yield from _names(config)
    yield from _file_names(config)
    yield from _start(config)
    yield from _from_scratch(config)
    yield from _own_starts(config)
    yield from _seeds(config)
    yield from _quantised(config, ("start",), [name for name, one in config.students.items() if one.start is None])
    for name, one in config.students.items():
        if one.start is not None:
            yield from _quantised(config.seen_by(name), ("students", name, "start"), [name])
    if config.judge is not None:
        yield from _judge(config, config.judge, ("judge",))
    if config.evaluation.judge is not None and config.evaluation.judge != "same":
        yield from _judge(config, config.evaluation.judge, ("evaluation", "judge"))
    if config.audit.second is not None:
        yield from _judge(config, config.audit.second.judge, ("audit", "second", "judge"))
    yield from _second_judge(config)
    for path, judge in filter_checks.judges(config):
        yield from _judge(config, judge, path)
    yield from filter_checks.filters(config)
    yield from _prices(config)
    yield from elicitation_checks.elicited(config)
    for path, judge in label_checks.judges(config):
        yield from _judge(config, judge, path)
    yield from label_checks.labels(config)
    yield from label_checks.revisions(config)
    yield from author_checks.authors(config)
    yield from teacher_checks.distilled(config)
    yield from teacher_checks.fidelity(config)
    yield from _quantized(config)
    if config.rounds is not None:
        yield from round_checks.rounds(config, config.rounds)
    if config.evaluation.against_teacher and config.teacher is None:
        yield Problem(("evaluation", "against_teacher"), "there is no 'teacher' to compare with: add one, or set it to false")


def _data(config: RunConfig) -> Iterator[Problem]:
    """The training data: prompts that are answered and judged in this run, or existing preferences."""
    if config.prompts is None and config.rankings.source is None:
        advice = "give 'prompts' (answers are sampled and judged in this run) or 'rankings.source' (existing preferences)"
        yield Problem((), f"there is no training data: {advice}")
    if config.prompts is not None and config.rankings.source is not None:
        advice = "a run trains either on prompts judged in this run or on existing preferences: set one of the two to null"
        yield Problem(("rankings", "source"), f"'prompts' is set as well; {advice}")
    if config.rankings.source is None and config.rankings.scores != "logits":
        yield Problem(("rankings", "scores"), "this is about the scores of 'rankings.source', which is not set: remove it")
    if config.prompts is None or config.rankings.source is not None:
        return
    offline = any(not isinstance(one.objective, OnPolicy) for one in config.students.values())
    if config.judge is None and (config.reward_model is not None or offline):
        yield Problem(("judge",), "the answers to 'prompts' need a judge: add this section")
    elif config.judge is None and not config.students:
        text = "the answers to 'prompts' need a judge: add this section, or students whose objective has its own reward"
        yield Problem(("judge",), text)
    authors = config.candidates.authors
    known = config.named_models
    for number, author in enumerate(authors):
        if author not in known and not (author == "start" and config.start is None):  # `_start` reports a missing start
            yield Problem(("candidates", "from", number), no_such_model(author, known))
    if len(set(authors)) < len(authors):
        yield Problem(("candidates", "from"), "a model is listed twice: use 'per_prompt' to set the number of answers of each")
    elif config.candidates.answers < 2 and config.candidates.revise is None:
        yield Problem(
            ("candidates", "per_prompt"),
            "a single answer cannot be ranked: set this to 2 or more, or add another model to candidates.from, or 'revise'",
        )


def _kto(config: RunConfig) -> Iterator[Problem]:
    """KTO's baseline is a mean over the prompts of an optimiser step; its margin may be that of ties."""
    for name, student in config.students.items():
        objective = student.objective
        if not isinstance(objective, Kto):
            continue
        if student.batch_size < LEAST_PROMPTS:
            text = f"kto's baseline is a mean over the prompts of a step, and noise with fewer than {LEAST_PROMPTS}: set this to"
            yield Problem(("students", name, "batch_size"), f"{text} {LEAST_PROMPTS} or more")
        if objective.split == "margin" and objective.margin is None and not config.rankings.tie_margin:
            text = "there is no margin around the mean score: set 'margin' beside this key, or rankings.tie_margin"
            yield Problem(("students", name, "objective", "split"), text)


def _file_names(config: RunConfig) -> Iterator[Problem]:
    """A text in the place of a file with it: looking for a file of such a name is an error of the system."""
    for path, section in sections_in(config):
        for name, of_field in marks(type(section)).items():
            value = getattr(section, name)
            if ReadsFile not in of_field or not isinstance(value, str):
                continue
            written = value.encode("utf-8", "surrogatepass")
            if len(written) > _PATH_BYTES or max(map(len, written.split(b"/"))) > _NAME_BYTES:
                text = f"no file has a name of {len(value)} characters: write the text to a file, and give its path"
                yield Problem((*path, name), text)


def _names(config: RunConfig) -> Iterator[Problem]:
    """Names that are used as folder names, and reserved names."""
    if PurePath(config.runtime.runs, config.name) == PurePath(config.runtime.store):
        yield Problem(("name",), f"the folder {config.runtime.store} is the store of finished stages: choose another name")
    for name in config.models:
        if name in ("start", "teacher"):
            yield Problem(("models", name), f"'{name}' is a reserved name (the section '{name}'): choose another name")
        if not re.fullmatch(NAME_PATTERN, name):
            text = "a model's name must be letters, digits, '.', '-' and '_', and start with a letter or a digit"
            yield Problem(("models", name), text)
    for section, reserved in _RESERVED.items():
        for name in getattr(config, section).keys() & reserved:
            yield Problem((section, name), f"'{name}' is a reserved name: choose another name")
    for name, student in config.students.items():
        if not re.fullmatch(NAME_PATTERN, name):
            text = "a student's name must be letters, digits, '.', '-' and '_', and start with a letter or a digit"
            yield Problem(("students", name), text)
        if name in ("start", "teacher"):
            yield Problem(("students", name), f"'{name}' is a reserved name (it is in every report): choose another name")
        if name == "best_of_n" and student.objective.kind != "best_of_n":
            yield Problem(
                ("students", name),
                "'best_of_n' is a reserved name (the baseline that imitates the best candidate): "
                f"choose another name for a student with objective {student.objective.kind}",
            )


def _start(config: RunConfig) -> Iterator[Problem]:
    """The sections that need a start."""
    if config.start is not None:
        return
    if config.prompts is not None:
        yield Problem(("start",), "'prompts' needs a start, the model to be trained: add this section")
    elif config.students:
        yield Problem(("start",), "students need a start, the model that training starts from: add this section")
    if config.sft is not None:
        yield Problem(("sft",), "`sft` needs a `start`: add one, or remove this section")
    if config.reward_model is not None and config.reward_model.model is None:
        yield Problem(("reward_model", "model"), "a reward model needs a backbone: set this key, or add 'start'")


def _from_scratch(config: RunConfig) -> Iterator[Problem]:
    """A model from scratch needs demonstrations; the backbone of a reward model is trained on the rankings instead."""
    scored_by = config.reward_model.model if config.reward_model is not None else None
    if scored_by is not None and scored_by.from_scratch is not None and scored_by.from_scratch.tokenizer_data is not None:
        text = "the tokenizer of a reward model from scratch is trained on the rankings: remove it"
        yield Problem(("reward_model", "model", "from_scratch", "tokenizer_data"), text)
    if config.start is not None and config.start.from_scratch is not None and config.sft is None:
        yield Problem(("start", "from_scratch"), f"a start from scratch needs 'sft' ({_SCRATCH_ADVICE})")
    for path, model in _teachers(config):
        if isinstance(model, Teacher) and model.from_scratch is not None and model.sft is None:
            text = f"a model from scratch needs 'sft' in the same section ({_SCRATCH_ADVICE})"
            yield Problem((*path, "from_scratch"), text)


def _own_starts(config: RunConfig) -> Iterator[Problem]:
    """Students that are not trained from the run's start."""
    for name, student in config.students.items():
        path: KeyPath = ("students", name, "start")
        if student.start is None:
            continue
        if student.start.from_scratch is not None and student.start.sft is None:
            yield Problem((*path, "from_scratch"), f"a start from scratch needs 'sft' in the same section ({_SCRATCH_ADVICE})")
        if config.rounds is not None:
            yield Problem(path, "all students of a later round start from the promoted one: remove this key, or 'rounds'")
        if isinstance(student.objective, BestOfN) and name == "best_of_n":
            yield Problem(
                path, "'best_of_n' is the baseline that all students are compared with: choose another name, or remove this key"
            )
        for section in ("models", "students"):
            if f"start-{name}" in getattr(config, section):
                yield Problem((section, f"start-{name}"), f"this is the name of the start of student '{name}': choose another name")


def _seeds(config: RunConfig) -> Iterator[Problem]:
    """Several seeds on one store of data."""
    if not config.seeds:
        return
    if len(set(config.seeds)) < len(config.seeds):
        yield Problem(("seeds",), "a seed is listed twice")
    if config.rounds is not None:
        text = "the data of later rounds is that of one student: remove this key, and run the config once for each seed"
        yield Problem(("seeds",), f"{text} (seed=1 name={config.name}-1)")
    for name, student in config.students.items():
        if re.search(r"-s\d+$", name):
            yield Problem(("students", name), "names that end in -s and a number are those of seeds: choose another")
        if student.seed is not None:
            yield Problem(("students", name, "seed"), "every student is trained with all of 'seeds': remove this key")


def _quantised(config: RunConfig, path: KeyPath, students: Sequence[str]) -> Iterator[Problem]:
    """Only adapters are trained on a quantised start, and whole weights are never made of it before the end."""
    start = config.start
    if start is None or start.lora is None:
        if start is not None and start.quantize is not None:
            text = "quantised weights cannot be trained, only adapters on them: add 'lora' to the same section, or remove this key"
            yield Problem((*path, "quantize"), text)
        return
    if start.quantize is not None and start.from_scratch is not None:
        text = "a model from scratch is trained whole, and quantised weights cannot be trained: remove this key"
        yield Problem((*path, "quantize"), text)
    elif start.quantize is not None and config.sft is not None:
        text = "the start after `sft` would be quantised again, which keeps 2 % of a small change"
        advice = "fine-tune in a run without this key, and set start.model to the folder of its result"
        yield Problem((*path, "quantize"), f"{text}: {advice}")
    if start.quantize is not None and str(config.runtime.deepspeed).startswith("zero3"):
        text = "ZeRO-3 shards weights by their number of values, and quantised ones are packed bytes: use zero1 or zero2"
        yield Problem(("runtime", "deepspeed"), text)
    for name in students:
        objective = config.students[name].objective
        if isinstance(objective, Ppo) and objective.server is not None:
            server: KeyPath = ("students", name, "objective", "server")
            if start.quantize is not None:
                yield Problem(server, "a rollout server loads whole weights, not start.quantize's: remove one of the two")
            elif start.lora.use_dora:
                yield Problem(server, "weights for a rollout server are merged by LoRA's rule, not DoRA's: remove one of the two")


def _judge(config: RunConfig, judge: Judge, path: KeyPath) -> Iterator[Problem]:
    """The judge's model exists and supports this kind of judge."""
    known = config.named_models
    for use in model_uses(judge):
        if isinstance(use.model, str) and use.model not in known:
            yield Problem((*path, *use.path), no_such_model(use.model, known))
            continue
        model = known[use.model] if isinstance(use.model, str) else use.model
        is_remote = isinstance(model, EndpointModel | FunctionModel)
        if isinstance(use.owner, JudgeSection) and use.owner.needs_local_model and is_remote:
            given_by = "an endpoint" if isinstance(model, EndpointModel) else "a function"
            text = f"a likelihood judge needs log-probabilities of whole answers, which {given_by} does not provide"
            yield Problem((*path, *use.path), f"{text}: use a local model, or kind pairwise or rubric")


def _second_judge(config: RunConfig) -> Iterator[Problem]:
    """A second judge has a judge to be compared with, which is another one; limits on it need one."""
    second = config.audit.second
    if second is None:
        for name, limits in (("warn", config.audit.warn), ("stop", config.audit.stop)):
            if limits.second_disagreement not in (None, type(limits).model_fields["second_disagreement"].default):
                text = "there is no second judge to disagree with: add audit.second, or remove this key"
                yield Problem(("audit", name, "second_disagreement"), text)
    elif config.judge is None or config.prompts is None:
        yield Problem(("audit", "second"), "this is compared with the run's 'judge', and nothing is judged here: remove it")
    elif second.judge == config.judge:
        yield Problem(("audit", "second", "judge"), "a judge always agrees with itself: give another one, or remove 'second'")


def _prices(config: RunConfig) -> Iterator[Problem]:
    """A budget in US dollars needs a price for every server."""
    if config.budget.usd is None:
        return
    servers = {model.name for _, model in _teachers(config) if isinstance(model, EndpointModel)}
    for name in sorted(servers - config.budget.prices.keys()):
        text = f"there is no price for '{name}': give USD per million tokens, as in {{prompt: 0.5, completion: 1.5}}, zeros if free"
        yield Problem(("budget", "prices"), text)


def _quantized(config: RunConfig) -> Iterator[Problem]:
    exported = config.start.quantize.export if config.start is not None and config.start.quantize is not None else None
    if config.evaluation.quantized and exported == "adapter":
        text = "students of start.quantize with 'export: adapter' are adapters on a model in few bits already: set it to null"
        yield Problem(("evaluation", "quantized"), f"{text}, or export: merged")


def _teachers(config: RunConfig) -> Iterator[tuple[KeyPath, Teacher | EndpointModel | FunctionModel]]:
    """Every model except the start, with its path."""
    if config.teacher is not None:
        yield ("teacher",), config.teacher
    for name, model in config.models.items():
        yield ("models", name), model
    for use in model_uses(config):
        if isinstance(use.model, Teacher | EndpointModel | FunctionModel):
            yield use.path, use.model
