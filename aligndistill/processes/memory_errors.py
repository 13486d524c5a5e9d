"""Which errors mean that memory ran out."""

import torch


def means_no_memory(error: BaseException) -> bool:
    """Whether an error is the device's or the host's lack of memory; the host's allocator raises a plain `RuntimeError`."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)
