"""Recognise errors that mean a full disk."""

import errno
import os

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FULL_DISK_MESSAGES = (*map(os.strerror, DISK_FULL), "iostream error", "PytorchStreamWriter failed")
"""Parts of the error messages of safetensors and tokenizers (those of the system) and of torch when a disk is full."""


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or its cause, means a full disk. Only Python's own errors have an errno; others are matched by message."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return True
    message = str(error)
    return any(part in message for part in FULL_DISK_MESSAGES) or is_full_disk(error.__cause__ or error.__context__)
