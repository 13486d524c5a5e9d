"""What a config names on this machine: data, model folders, templates, functions, keys, DeepSpeed's file, the store."""

import ast
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from aligndistill.chat.http.keys import read_key
from aligndistill.commands.plan.memory import read_sharding
from aligndistill.config.elicitation import Curate
from aligndistill.config.judges import Function, Listwise, Pairwise, RewardScore, Rubric
from aligndistill.config.labels import LabelRequest, Revise, Selection
from aligndistill.config.models import EndpointModel, FunctionModel, LocalModel, Lora, StudentModel
from aligndistill.config.objectives import OnPolicyDistil, Ppo, RolloutServer
from aligndistill.config.offline_objectives import Distil, HiddenStates
from aligndistill.config.plugins import no_such_module, no_such_name, plugin_file
from aligndistill.config.run import Evaluation, RunConfig
from aligndistill.config.schema import KeyPath, sections_in
from aligndistill.config.section import Section
from aligndistill.elicitation.curation import quotas, read_personas, read_topics
from aligndistill.errors import ConfigError, DataError, UserError
from aligndistill.judges.domains import EXAMPLES, INSTRUCTION, domain_file, text_of
from aligndistill.judges.templates import LISTWISE_FIELDS, PAIRWISE_FIELDS, RUBRIC_FIELDS, load_template
from aligndistill.models.folder import (
    has_chat_template,
    names_a_folder,
    no_chat_template,
    number_of_layers,
    read_template,
    require_bitsandbytes,
    require_heads,
    require_model,
    require_unquantised,
    tied_weight_on_a_server,
    ties_head,
)
from aligndistill.models.vocabulary import shared_vocabulary, tokens_in
from aligndistill.stages.chains import models_of_runs, require_one_tokenizer, with_folder
from aligndistill.stages.revisions import read_principles

Requirement = tuple[KeyPath, Callable[[], object]]
"""A key, and a function that raises a `UserError` if what the key names cannot be used."""


def missing(config: RunConfig) -> Iterator[tuple[KeyPath, UserError]]:
    """What the config names and a run could not use, by key. Data files: `rows.py`."""
    for path, section in sections_in(config):
        for key, require in _requirements(section):
            try:
                require()
            except UserError as error:
                yield (*path, *key), error
    for key, require in (
        *_of_runtime(config),
        *_of_distilled(config),
        *_of_served(config),
        *_of_quantized(config),
        *_of_chains(config),
    ):
        try:
            require()
        except UserError as error:
            yield key, error


def _requirements(section: Section) -> Iterator[Requirement]:
    if isinstance(section, RewardScore) and section.pessimism:
        yield ("pessimism",), partial(require_heads, section.model)
    match section:
        case LocalModel(run=str()):
            yield ("run",), partial(with_folder, section)
        case LocalModel(model=str(model)) | RewardScore(model=str(model)):
            yield ("model",), partial(require_model, model)
            if isinstance(section, StudentModel):
                yield ("model",), partial(require_unquantised, model)
            if isinstance(section, StudentModel) and section.quantize is not None:
                yield ("quantize",), require_bitsandbytes
            if isinstance(section, LocalModel) and section.chat_template is not None:
                yield ("chat_template",), partial(read_template, section.chat_template)
            elif section.layout == "chat":
                yield ("layout",), partial(_require_chat_template, Path(model))
        case EndpointModel(tokenizer=str(tokenizer)):
            yield ("tokenizer",), partial(_require_tokenizer, tokenizer)
        case Pairwise() | Listwise() | Rubric():
            fields = {"pairwise": PAIRWISE_FIELDS, "listwise": LISTWISE_FIELDS, "rubric": RUBRIC_FIELDS}[section.kind]
            key = "template" if section.domain is None else "domain"
            yield (key,), partial(load_template, section.template, fields, section.domain)
        case Curate():
            yield ("topics",), partial(_require_topics, section)
            if section.personas is not None:
                yield ("personas",), partial(read_personas, section.personas)
        case Function() | FunctionModel():
            yield ("function",), partial(_require_function, section.function)
        case Evaluation(truth=str(truth)):
            yield ("truth",), partial(_require_function, truth)
    if isinstance(section, Lora):
        yield ("target_modules",), partial(_is_targeted, section, "")
    if isinstance(section, LabelRequest):
        yield from _of_labels(section)
    if isinstance(section, Selection) and section.function is not None:
        yield ("function",), partial(_require_function, section.function)
    if isinstance(section, Revise):
        yield ("domain" if section.principles is None else "principles",), partial(read_principles, section)
    if isinstance(section, EndpointModel | RolloutServer) and section.api_key_env is not None:
        yield ("api_key_env",), partial(read_key, section.api_key_env)


def _of_labels(section: LabelRequest) -> Iterator[Requirement]:
    if section.instruction is not None:
        yield ("instruction",), partial(text_of, Path(section.instruction), "instruction")
    elif section.domain is not None:
        yield ("domain",), partial(domain_file, section.domain, INSTRUCTION)
    if section.examples is None and section.domain is not None:
        yield ("domain",), partial(domain_file, section.domain, EXAMPLES)


def _of_runtime(config: RunConfig) -> Iterator[Requirement]:
    yield ("runtime", "deepspeed"), partial(read_sharding, config.runtime.deepspeed)
    yield ("runtime", "store"), partial(_require_writable, config.runtime.store)
    yield ("runtime", "runs"), partial(_require_writable, config.runtime.runs)


def _of_distilled(config: RunConfig) -> Iterator[Requirement]:
    teacher = config.teacher
    taught_by = teacher.tokenizer if isinstance(teacher, EndpointModel) else getattr(teacher, "model", None)
    for name, student in config.students.items():
        objective, start = student.objective, config.seen_by(name).start
        if start is None or start.model is None or taught_by is None:
            continue
        path: KeyPath = ("students", name, "objective")
        if isinstance(objective, Distil | OnPolicyDistil):
            yield path, partial(_require_one_tokenizer, Path(start.model), Path(taught_by))
        if config.evaluation.fidelity:
            yield ("evaluation", "fidelity"), partial(_require_one_tokenizer, Path(start.model), Path(taught_by))
        if isinstance(objective, Distil) and objective.hidden is not None:
            yield (*path, "hidden", "layers"), partial(_require_layers, objective.hidden, start.model, taught_by)


def _of_served(config: RunConfig) -> Iterator[Requirement]:
    for name, student in config.students.items():
        own = config.seen_by(name)
        if (
            isinstance(student.objective, Ppo)
            and student.objective.server is not None
            and own.start is not None
            and own.sft is None
        ):
            yield ("students", name, "objective", "server"), partial(_require_servable, own.start)


def _of_chains(config: RunConfig) -> Iterator[Requirement]:
    """Only where all runs exist: what is missing of them is an error of its own."""
    if all((Path(str(model.run)) / "config.yaml").is_file() for _, model in models_of_runs(config)):
        yield ("teacher",), partial(require_one_tokenizer, config)


def _of_quantized(config: RunConfig) -> Iterator[Requirement]:
    if config.evaluation.quantized is not None and config.students:
        yield ("evaluation", "quantized"), require_bitsandbytes


def _require_one_tokenizer(start: Path, teacher: Path) -> None:
    """Only of folders: what is on the Hub is compared when it is downloaded."""
    own, teachers = tokens_in(start), tokens_in(teacher)
    if own is not None and teachers is not None:
        shared_vocabulary(own, teachers)


def _require_layers(hidden: HiddenStates, start: str, teacher: str) -> None:
    if reason := hidden.missing_layer(number_of_layers(start), number_of_layers(teacher)):
        raise ConfigError(reason)


def _require_topics(step: Curate) -> None:
    if isinstance(step.topics, str):
        quotas(step, read_topics(step.topics))


def _require_servable(start: StudentModel) -> None:
    """By the names of most models; training looks at the model itself."""
    if start.model is None or start.lora is None or not ties_head(start.model):
        return
    if any(_is_targeted(start.lora, layer) for layer in ("lm_head", "model.embed_tokens")):
        raise tied_weight_on_a_server()


def _is_targeted(lora: Lora, layer: str) -> bool:
    """Whether a layer gets adapters, by peft's rule: a pattern matches all of its path, a name in a list is the end of it.

    Raises:
        ConfigError: the pattern is none.
    """
    targets = lora.target_modules
    if not isinstance(targets, str):
        return any(layer == name or layer.endswith(f".{name}") for name in targets)
    try:
        return re.fullmatch(targets, layer) is not None
    except re.error as error:
        advice = "Give the names of layers as a list, a pattern, or all-linear."
        raise ConfigError(f"'{targets}' is no regular expression: {error}. {advice}") from None


def _require_chat_template(folder: Path) -> None:
    """Only of a folder that has a tokenizer's config: else the error is another one."""
    if (folder / "tokenizer_config.json").is_file() and not has_chat_template(folder):
        raise no_chat_template(str(folder))


def _require_tokenizer(name: str) -> None:
    if not Path(name).is_dir() and names_a_folder(name):
        raise DataError(f"the tokenizer's folder '{name}' does not exist.")


def _require_function(name: str) -> None:
    """Find the function without importing its module, which may take long and runs the user's code."""
    module, _, attribute = name.partition(":")
    file = plugin_file(name)
    if file is None:
        raise no_such_module(name, module)
    if file.suffix != ".py":
        return
    try:
        names = _names_in(file.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ConfigError(f"cannot import '{name}': {file}:{error.lineno}: {error.msg}.") from None
    if names is not None and attribute.partition(".")[0] not in names:
        raise no_such_name(name, module, attribute)


def _names_in(source: str) -> set[str] | None:
    """The names that a module defines or imports anywhere in it; None if that cannot be told from its text."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return None if names & {"*", "__getattr__"} else names


def _require_writable(folder: Path) -> None:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise DataError(f"cannot write to '{folder}': '{existing}' is a file. Set another folder.")
    if not os.access(existing, os.W_OK):
        raise DataError(f"cannot write to '{folder}': '{existing}' is not writable. Set another folder.")
