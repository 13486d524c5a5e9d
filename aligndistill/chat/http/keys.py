"""API keys, which are read from environment variables only."""

import os

from aligndistill.errors import ConfigError


def read_key(variable: str) -> str:
    """The key in an environment variable.

    Raises:
        ConfigError: the variable is not set, or its value cannot be a key.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {variable} (api_key_env) is not set: export it, or remove api_key_env.")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the environment variable {variable} (api_key_env) contains characters that are not allowed in a key.")
    return key
