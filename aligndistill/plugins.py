"""`package.module:name` -> the object. The working directory is importable, as it is for `python -m`."""

import importlib
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
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
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
