"""`python -m benchmarks.matrix_rate`: how many operations per second this machine reaches in a large product of matrices.

What a row's share is a share of. It is measured, not taken from a data sheet, whose rate no machine holds.
"""

import json
from statistics import median

import torch

from benchmarks.probe import now

PRODUCTS = 10
"""Between two looks at the clock."""


def matrix_rate(size: int, dtype: torch.dtype, device: str, repeats: int = 9) -> float:
    """Operations per second of size x size products, the median of some timings; a product is 2 size^3 of them."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    seconds = []
    for repeat in range(repeats + 1):
        started = now()
        for _ in range(PRODUCTS):
            torch.mm(left, right, out=out)
        if repeat > 0:  # the first warms up
            seconds.append(now() - started)
    return PRODUCTS * 2 * size**3 / median(seconds)


def main() -> None:
    """See above: in bfloat16 on a GPU, in float32 on a CPU."""
    on_gpu = torch.cuda.is_available()
    size, dtype, device = (8192, torch.bfloat16, "cuda") if on_gpu else (1024, torch.float32, "cpu")
    rate = matrix_rate(size, dtype, device)
    print(json.dumps({"flops_per_second": rate, "size": size, "dtype": str(dtype).removeprefix("torch."), "device": device}))


if __name__ == "__main__":
    main()
