"""Which learning rates of a config are the defaults for adapters, as one line for people."""

from aligndistill.config.problems import show_key
from aligndistill.config.run import RunConfig


def adapter_rates_line(config: RunConfig) -> str | None:
    """The learning rates that are higher by default because adapters are trained; None if there are none.

    A config that was written out gives every rate, so the processes that a launcher starts do not repeat the line.
    """
    rates = {show_key(key): section.learning_rate for key, section in config.adapter_sections.items() if section.has_default_rate}
    if not rates:
        return None
    listed = ", ".join(f"{rate:g} for {key}" for key, rate in rates.items())
    return f"learning_rate: {listed} (higher by default, because lora trains adapters)"
