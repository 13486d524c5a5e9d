"""Which settings of a config are the defaults for adapters, as one line for people."""

from collections.abc import Iterator

from aligndistill.config.objectives import Ppo
from aligndistill.config.problems import show_key
from aligndistill.config.run import RunConfig
from aligndistill.config.students import Student


def adapter_defaults_line(config: RunConfig) -> str | None:
    """What has another default because adapters are trained: learning rates, and settings of PPO; None if there is nothing.

    A config that was written out gives every value, so the processes that a launcher starts do not repeat the line.
    """
    sections = config.adapter_sections
    rates = [f"{one.learning_rate:g} for {show_key(key)}" for key, one in sections.items() if one.has_default_rate]
    found = [f"learning_rate: {', '.join(rates)} (higher by default, because lora trains adapters)"] if rates else []
    for key, one in sections.items():
        if isinstance(one, Student) and isinstance(one.objective, Ppo):
            values = ", ".join(_other_defaults(one.objective))
            found += [f"{show_key((*key, 'objective'))}: {values} (by default with lora)"] if values else []
    return "; ".join(found) or None


def _other_defaults(objective: Ppo) -> Iterator[str]:
    for name, field in Ppo.model_fields.items():
        value = getattr(objective, name)
        if name not in objective.model_fields_set and value != field.default:
            yield f"{name} {value}"
