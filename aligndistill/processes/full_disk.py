"""Which errors mean that there is no more room on a disk."""

import errno
import os

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FULL_DISK_WORDS = (*map(os.strerror, DISK_FULL), "iostream error", "PytorchStreamWriter failed")
"""What safetensors and tokenizers (in the system's words), and torch, say of a full disk."""


def means_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, says that there is no more room; only Python's own carry it as a number."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return True
    words = str(error)
    return any(phrase in words for phrase in FULL_DISK_WORDS) or means_full_disk(error.__cause__ or error.__context__)
