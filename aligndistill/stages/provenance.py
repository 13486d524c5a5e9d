"""Gathers where a run's data comes from: from its config, model cards, and the manifests of its stages."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from aligndistill.config.data import Source
from aligndistill.config.models import EndpointModel, FunctionModel, LocalModel
from aligndistill.config.paths import at_home
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import sections_in
from aligndistill.config.section import Section
from aligndistill.config.servers import hosts_of
from aligndistill.judges.templates import template_text
from aligndistill.reporting.provenance import UNKNOWN, DataOrigin, Energy, ModelOrigin, Origins, StageOrigin
from aligndistill.stages.files import GENERATED
from aligndistill.store.artifacts import MANIFEST, content_fingerprint, read_manifest
from aligndistill.store.stage import Stage

FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
HASH_DIGITS = 16


def origins(config: RunConfig) -> Origins:
    """The models and the data of a resolved config. Folders are hashed, and their README.md is read."""
    sources = [(path, one) for path, one in sections_in(config) if isinstance(one, Source)]
    return Origins(
        models=tuple(_model(name, model) for name, model in config.named_models.items()),
        data=tuple(_data(".".join(map(str, path)), one) for path, one in sources),
    )


def licence_of(model: EndpointModel | FunctionModel | LocalModel) -> str | None:
    """The licence that the config gives for a model, or else its folder's README.md; None if neither does."""
    folder = at_home(model.model) if isinstance(model, LocalModel) and model.model is not None else None
    return model.licence or (licence_in(folder / "README.md") if folder is not None else None)


def licence_in(card: Path) -> str | None:
    """The licence in the front matter of a model's or data set's card on this machine; None if there is none."""
    try:
        front = FRONT_MATTER.match(card.read_text(encoding="utf-8"))
        values = yaml.safe_load(front[1]) if front else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    if not isinstance(values, dict):
        return None
    name, licence = values.get("license_name"), values.get("license")
    found = name if licence == "other" and name else licence
    return str(found) if found else None


def _model(name: str, model: EndpointModel | FunctionModel | LocalModel) -> ModelOrigin:
    licence, train = licence_of(model) or UNKNOWN, model.outputs_may_train
    if isinstance(model, EndpointModel):
        return ModelOrigin(name=name, model=model.name, server=hosts_of(model.urls), licence=licence, outputs_may_train=train)
    if isinstance(model, FunctionModel):
        code = model.code_hash[:HASH_DIGITS]
        return ModelOrigin(name=name, model=model.function, revision=code, licence=licence, outputs_may_train=train)
    if model.model is None:
        return ModelOrigin(name=name, model="from scratch", licence="none: trained in this run", outputs_may_train="yes")
    folder = at_home(model.model)
    revision = content_fingerprint(folder) if folder.is_dir() else model.revision
    shown = folder.name if folder.is_dir() else model.model
    return ModelOrigin(name=name, model=shown, revision=revision, licence=licence, outputs_may_train=train)


def _data(key: str, source: Source) -> DataOrigin:
    path = at_home(source.path)
    if not path.exists():
        return DataOrigin(key=key, data=source.path, revision=source.revision, licence=source.licence or UNKNOWN)
    card = (path if path.is_dir() else path.parent) / "README.md"
    licence = source.licence or licence_in(card) or UNKNOWN
    return DataOrigin(key=key, data=path.name, hash=content_fingerprint(path), licence=licence)


# -------------------------------------------------------------------------------------------------------------- stages


def stage_origin(stage: Stage, folder: Path, spent: Mapping[str, float], energy: Energy | None) -> StageOrigin | None:
    """How a finished stage made its rows; None if it is not finished, or no model wrote or judged anything in it.

    Args:
        spent: what its requests cost: `requests`, `tokens`, `usd`.
    """
    manifest, asked = read_manifest(folder), models_asked(stage)
    if manifest is None or not asked:
        return None
    settings = {
        name: value
        for name, value in stage.given.items()
        if isinstance(value, Section)
        and not isinstance(value, EndpointModel | FunctionModel | LocalModel | Source)  # these are among the origins
    }
    plain: dict[str, Any] = {name: value for name, value in stage.given.items() if isinstance(value, int | float | str)}
    plain |= {
        name: asdict(value) for name, value in stage.given.items() if is_dataclass(value) and not isinstance(value, Stage | type)
    }
    last = (folder / MANIFEST).stat().st_mtime
    most = max((number for kind, number in manifest.counts.items() if kind != "rows"), default=0)
    usd, tokens = spent.get("usd", 0.0), int(spent.get("tokens", 0))
    return StageOrigin(
        stage=stage.name,
        artifact=folder.name,
        models=asked,
        sampling={**plain, **{name: value.model_dump(mode="json") for name, value in settings.items()}},
        templates=dict(_templates(settings)),
        first=_utc(last - manifest.wall_seconds),
        last=_utc(last),
        wall_seconds=round(manifest.wall_seconds, 3),
        requests=int(spent.get("requests", 0)),
        tokens=tokens,
        usd=usd,
        rows=manifest.counts,
        dropped=manifest.dropped,
        generated=GENERATED if GENERATED in manifest.files else None,
        usd_per_row=usd / most if usd and most else None,
        tokens_per_row=tokens / most if tokens and most else None,
        energy=energy,
    )


def models_asked(stage: Stage) -> tuple[str, ...]:
    """The names of the models that write or judge in a stage."""
    given = stage.given
    named = [*given.get("authors", {}), *given.get("models", {})]
    return tuple(dict.fromkeys([*named, *([given["name"]] if "author" in given else [])]))


def _templates(settings: Mapping[str, Section]) -> Iterator[tuple[str, str]]:
    for section in settings.values():
        for _, inside in sections_in(section):
            name: Any = getattr(inside, "template", None)
            if isinstance(name, str):
                yield name, hashlib.sha256(template_text(name).encode()).hexdigest()[:HASH_DIGITS]


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
