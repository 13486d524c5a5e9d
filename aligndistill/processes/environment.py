"""Defaults for environment variables that libraries read at import time, and warnings of libraries that are hidden."""

import logging
import os
import sys
import warnings

DEFAULTS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # TRL and the Hub client would report usage
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    # Threads that busy-wait made small models 2 to 4 times slower on two cores (docs/running.md).
    "OMP_WAIT_POLICY": "PASSIVE",
    # Else MKL may take fewer threads than it is given, and a sum that is split otherwise is rounded otherwise.
    "MKL_DYNAMIC": "FALSE",
}


def set_environment_defaults() -> None:
    """Set the defaults, before torch and transformers are imported. Values that the user has set are kept.

    If those are already imported, `OMP_WAIT_POLICY` and similar variables have no effect. Telemetry is disabled even then.
    """
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None and "HF_HUB_DISABLE_TELEMETRY" not in os.environ:
        hub.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def hide_library_warnings() -> None:
    """Hide warnings about calls that one library makes to another, which users cannot change."""
    # peft and TRL read properties and call methods that transformers has renamed.
    warnings.filterwarnings("ignore", r"`\w*gradient_checkpointing\w*` is deprecated", FutureWarning)
    # DeepSpeed calls functions that torch has renamed, which warns once per call in every process.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # peft warns about merging adapters on a tied head, which `training.save` does.
    warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True` and a tied layer is part of the adapter", UserWarning)
    # peft imports bitsandbytes, which advises on some CPUs to install a package that downloads code.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
