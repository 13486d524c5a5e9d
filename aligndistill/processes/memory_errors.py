"""Recognise out-of-memory errors."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the host ran out of memory; the host's allocator raises a plain `RuntimeError`."""
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error):
        return True
    import torch  # imported here because a run with nothing to do imports this file too

    return isinstance(error, torch.OutOfMemoryError)
