"""Imports the object named by `package.module:name`. The working directory is importable, as with `python -m`."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from aligndistill.errors import ConfigError


def load_plugin(name: str) -> Any:
    """Import the object named by `package.module:name`.

    Raises:
        ConfigError: there is no such module, or no such name in it. Exceptions raised inside the module are not caught.
    """
    module_name, attribute = _parts(name)
    try:
        module = _newest(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise no_such_module(name, error.name) from None
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise no_such_name(name, module_name, attribute) from None


def no_such_module(name: str, module: str) -> ConfigError:
    """The error for `package.module:name` whose module cannot be found."""
    return ConfigError(
        f"cannot import '{name}': there is no module '{module}'. "
        "Write it as package.module:name, importable from the working directory or the environment."
    )


def no_such_name(name: str, module: str, attribute: str) -> ConfigError:
    """The error for `package.module:name` whose module does not have the name."""
    return ConfigError(f"cannot import '{name}': module '{module}' has no '{attribute}'.")


_contents: dict[str, bytes] = {}
"""Module name -> the content of its file when it was imported here."""


def _newest(module_name: str) -> ModuleType:
    """Import a module, reloading it if its file has changed since: in a notebook, users edit it between two runs.

    Fingerprints use the file's content, so without a reload results of the old code would be stored under the new code's
    fingerprint.
    """
    module = importlib.import_module(module_name)
    file = getattr(module, "__file__", None)
    if file and file.endswith(".py"):
        content = Path(file).read_bytes()
        if _contents.setdefault(module_name, content) != content:
            _contents[module_name] = content
            module = importlib.reload(module)
    return module


SHOWN_CHARACTERS = 80


def shown(value: object) -> str:
    """What a user's function got or returned, short enough for a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def plugin_file(name: str) -> Path | None:
    """The file of the module in `package.module:name`; None if it cannot be found."""
    try:
        found = importlib.util.find_spec(_parts(name)[0])
    except ModuleNotFoundError:
        return None
    return Path(found.origin) if found is not None and found.origin else None


def _parts(name: str) -> tuple[str, str]:
    """The module name and the attribute name; also adds the working directory to `sys.path`."""
    module_name, _, attribute = name.partition(":")
    if module_name == "__main__":
        raise ConfigError(
            f"cannot import '{name}': a later run cannot find functions that only this notebook or script defines. "
            f"Move it to a file in the same folder, such as my_functions.py, and write my_functions:{attribute}."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return module_name, attribute
