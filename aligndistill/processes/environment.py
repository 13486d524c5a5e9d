"""Defaults for environment variables that libraries read when they are imported; what the user has set stays."""

import os
import sys

DEFAULTS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # TRL and the Hub client would report usage
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    # Threads that spin while they wait made small models 2 to 4 times slower on two cores (docs/running.md).
    "OMP_WAIT_POLICY": "PASSIVE",
    # Else MKL may take fewer threads than it is given, and a sum that is split otherwise is rounded otherwise.
    "MKL_DYNAMIC": "FALSE",
}


def set_environment_defaults() -> None:
    """Set them, before torch and transformers are imported.

    Where those are imported already, `OMP_WAIT_POLICY` and the like have no effect any more. Telemetry is switched off even then.
    """
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None and "HF_HUB_DISABLE_TELEMETRY" not in os.environ:
        hub.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
