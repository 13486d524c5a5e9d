"""Which settings of a config are the defaults for adapters, as one line for people."""

from collections.abc import Iterator

from aligndistill.config.objectives import Objective
from aligndistill.config.problems import show_key
from aligndistill.config.run import RunConfig
from aligndistill.config.students import Student


def adapter_defaults_line(config: RunConfig) -> str | None:
    """What has another default because adapters are trained: learning rates, and settings of objectives; None if there is nothing.

    A config that was written out gives every value, so the processes that a launcher starts do not repeat the line.
    """
    sections = config.adapter_sections
    rates = [f"{one.learning_rate:g} for {show_key(key)}" for key, one in sections.items() if one.has_default_rate]
    found = [f"learning_rate: {', '.join(rates)} (higher by default, because lora trains adapters)"] if rates else []
    for key, one in sections.items():
        if isinstance(one, Student) and (values := ", ".join(_other_defaults(one.objective))):
            found.append(f"{show_key((*key, 'objective'))}: {values} (by default with lora)")
    return "; ".join(found) or None


def _other_defaults(objective: Objective) -> Iterator[str]:
    for name, value in objective.adapter_defaults.items():
        if name not in objective.model_fields_set and value != type(objective).model_fields[name].default:
            yield f"{name} {value}"
