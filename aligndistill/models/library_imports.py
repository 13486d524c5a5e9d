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

    peft remembers that there is none, also when it wraps layers, until `import_bitsandbytes`. transformers' Trainer imports peft as
    well, so this must come first.
    """
    if "peft" in sys.modules or "bitsandbytes" in sys.modules:
        return
    with _hidden("bitsandbytes"):
        importlib.import_module("peft")
        for module, name in _REMEMBERED:
            getattr(sys.modules[module], name)()


def import_bitsandbytes() -> None:
    """Import bitsandbytes, hiding the package `kernels` from it: with that it downloads code and runs it."""
    with _hidden("kernels"):
        importlib.import_module("bitsandbytes")
    for module, name in _REMEMBERED:
        if module in sys.modules:
            getattr(sys.modules[module], name).cache_clear()


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Inside the block, importing a package fails as if it were not installed."""
    before = {package: sys.modules[package]} if package in sys.modules else {}
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        sys.modules.update(before)
