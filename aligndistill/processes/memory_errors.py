"""Which errors mean that memory ran out."""


def means_no_memory(error: BaseException) -> bool:
    """Whether an error is the device's or the host's lack of memory; the host's allocator raises a plain `RuntimeError`."""
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error):
        return True
    import torch  # only here: a run that has nothing to do imports this file, too

    return isinstance(error, torch.OutOfMemoryError)
