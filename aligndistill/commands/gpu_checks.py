"""What `doctor` says of each GPU: its memory, who else uses it, and whether the largest training stage fits beside them."""

from collections.abc import Iterator, Mapping

import torch

from aligndistill.commands.output import Finding
from aligndistill.commands.plan.memory import GIB
from aligndistill.commands.plan.stage_memory import planned_memory
from aligndistill.config.run import RunConfig
from aligndistill.errors import UserError
from aligndistill.processes.gpu_memory import GpuMemory, read_gpu_memory
from aligndistill.stages.chains import with_models_of_runs

IDLE_BYTES = GIB // 10
"""What drivers hold of a GPU that no process uses."""


def gpu_findings(config: RunConfig | None) -> Iterator[Finding]:
    """A line for each GPU that torch can use; the memory is read before torch takes some of it."""
    memories: dict[str, GpuMemory] = {}
    try:
        memories = read_gpu_memory()
    except UserError as error:
        yield Finding("nvidia-smi", str(error), warns=True)
    if not torch.cuda.is_available():
        yield _no_gpu(memories)
        return
    largest = None
    try:
        largest = _largest_stage(config)
    except UserError as error:
        yield Finding("memory", str(error), passed=False)
    for index in range(torch.cuda.device_count()):
        yield _of_gpu(index, memories, largest)


def _of_gpu(index: int, memories: Mapping[str, GpuMemory], largest: tuple[str, int] | None) -> Finding:
    properties = torch.cuda.get_device_properties(index)
    memory = memories.get(f"GPU-{properties.uuid}")
    if memory is not None:
        total_bytes, free_bytes, use = memory.total_bytes, memory.free_bytes, _use(memory)
    else:  # of another maker, a part of a GPU, or nvidia-smi is missing
        free_bytes, total_bytes = torch.cuda.mem_get_info(index)
        use = f"{(total_bytes - free_bytes) / GIB:.1f} GiB in use, this check's own part included"
    bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: float32 will be used"
    found = f"{properties.name}, {total_bytes / GIB:.1f} GiB, {bf16}, {use}"
    if largest is None or largest[1] <= free_bytes:
        return Finding(f"gpu {index}", found)
    stage, needed_bytes = largest
    needs = f"{free_bytes / GIB:.1f} GiB are free, and {stage} needs about {needed_bytes / GIB:.1f} GiB"
    return Finding(f"gpu {index}", f"{found}: {needs}", warns=True)


def _no_gpu(memories: Mapping[str, GpuMemory]) -> Finding:
    if not memories:
        return Finding("gpu", "none: training runs on the CPU in float32")
    names = ", ".join(memory.name for memory in memories.values())
    build = "is a build for CPUs" if torch.version.cuda is None else f"is a build for CUDA {torch.version.cuda}"
    return Finding("gpu", f"torch can use none of {names}: it {build}. Training runs on the CPU in float32", warns=True)


def _use(memory: GpuMemory) -> str:
    if memory.used_bytes < IDLE_BYTES and not memory.pids:
        return "free"
    pids = f" (pid {', '.join(map(str, memory.pids))})" if memory.pids else ""
    return f"{memory.used_bytes / GIB:.1f} GiB in use by other processes{pids}"


def _largest_stage(config: RunConfig | None) -> tuple[str, int] | None:
    """The stage that needs the most of a GPU by `plan`'s estimate, with its bytes; None if no stage's need is known."""
    planned = planned_memory(with_models_of_runs(config)) if config is not None else {}
    return max(((stage, memory.gpu) for stage, memory in planned.items()), key=lambda one: one[1], default=None)
