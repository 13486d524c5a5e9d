"""Tells config files from overrides on a command line, and finds overrides that the shell has split."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from aligndistill.config.secrets import redact
from aligndistill.errors import ConfigError


def files_and_overrides(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files among the arguments, and the `section.key=value` overrides.

    Raises:
        ConfigError: the shell split an override because it was not in quotes. Its value is not shown, because it may be a secret.
    """
    problems = list(_split(arguments))
    if problems:
        raise ConfigError("\n".join(problems))
    overrides = [argument for argument in arguments if _is_override(argument)]
    return [Path(argument) for argument in arguments if not _is_override(argument)], overrides


def _is_override(argument: str) -> bool:
    return "=" in argument and not _is_file(argument)


def _is_file(argument: str) -> bool:
    try:
        return Path(argument).exists()
    except OSError:  # longer than a file's name can be
        return False


def _split(arguments: Sequence[str]) -> Iterator[str]:
    """`start.lora={r: 32}` without quotes arrives as `start.lora={r:` and `32}`: brackets that close in a later argument."""
    for number, argument in enumerate(arguments):
        key, _, value = argument.partition("=")
        depth = _depth(value) if _is_override(argument) else 0
        if depth <= 0:
            continue
        for later in arguments[number + 1 :]:
            depth += _depth(later)
            if depth == 0:
                whole = f"{key}={'[...]' if value.startswith('[') else '{...}'}"
                advice = f"put the argument in quotes, as in '{whole}'"
                yield redact(f"argument {key}=...: the shell split this value at its spaces: {advice}")
                break


def _depth(text: str) -> int:
    """Opening minus closing brackets."""
    return text.count("{") + text.count("[") - text.count("}") - text.count("]")
