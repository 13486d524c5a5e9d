"""The version of a store's format. Finished work of another version has other fingerprints: it is left alone and not found."""

from pathlib import Path

from aligndistill.store.artifacts import MANIFEST

STORE_VERSION = 2
"""Raised when fingerprints or manifests are formed otherwise."""

VERSION_FILE = "version"


def claim_store(store: Path) -> bool:
    """Write this version into the store's folder; whether finished work of another version is there."""
    file = store / VERSION_FILE
    written = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    if written == str(STORE_VERSION):
        return False
    holds_other_work = next(store.glob(f"*/{MANIFEST}"), None) is not None
    store.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{STORE_VERSION}\n", encoding="utf-8")
    return holds_other_work
