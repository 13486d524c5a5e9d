"""Imports of libraries that would import others which are slow, or which download code."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_REMEMBERED = (
    ("peft.import_utils", "is_bnb_available"),
    ("peft.import_utils", "is_bnb_4bit_available"),
    ("transformers.utils.import_utils", "is_bitsandbytes_available"),
)
"""Functions that remember whether bitsandbytes is installed."""


def import_peft() -> None:
    """Import peft, hiding bitsandbytes from it: that imports torch's compiler, which takes a sixth of a process's start.

    Whether layers are bitsandbytes' peft looks up only when it wraps them. transformers' Trainer imports peft as well, so this must
    come first.
    """
    if "peft" in sys.modules or "bitsandbytes" in sys.modules:
        return
    with _hidden("bitsandbytes"):
        importlib.import_module("peft")
    for module, name in _REMEMBERED:
        getattr(sys.modules[module], name).cache_clear()


def import_bitsandbytes() -> None:
    """Import bitsandbytes, hiding the package `kernels` from it: with that it downloads code and runs it."""
    if "bitsandbytes" in sys.modules or "kernels" in sys.modules:
        importlib.import_module("bitsandbytes")
        return
    with _hidden("kernels"):
        importlib.import_module("bitsandbytes")


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Inside the block, a package that is not imported is as if it were not installed."""
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
