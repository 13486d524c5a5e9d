"""`package.module:name` -> the object. The working directory is importable, as it is for `python -m`."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from aligndistill.errors import ConfigError


def load_plugin(name: str) -> Any:
    """Import the object that `package.module:name` names.

    Raises:
        ConfigError: no such module or no such name in it. An error inside the module is the user's and passes through.
    """
    module_name, _, attribute = name.partition(":")
    _look_here()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise ConfigError(
            f"cannot import '{name}': there is no module '{error.name}'. "
            "Write it as package.module:name, importable from the working directory or the environment."
        ) from None
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ConfigError(f"cannot import '{name}': module '{module_name}' has no '{attribute}'.") from None


def plugin_file(name: str) -> Path | None:
    """The file of the module that `package.module:name` names; None where there is none to be seen."""
    _look_here()
    try:
        found = importlib.util.find_spec(name.partition(":")[0])
    except ModuleNotFoundError:
        return None
    return Path(found.origin) if found is not None and found.origin else None


def _look_here() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
