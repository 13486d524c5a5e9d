"""What a command imports, by `python -X importtime`, and what it should not wait for."""

from tests.e2e.command import Ended

HEAVY = {
    *("accelerate", "aiohttp", "datasets", "deepspeed", "jinja2", "matplotlib", "numpy", "pandas", "peft", "pyarrow", "scipy"),
    *("tokenizers", "torch", "transformers", "trl"),
}
TOLD = {"PYTHONPROFILEIMPORTTIME": "1"}
"""The environment in which a command tells on standard error what it imports."""


def imported(ended: Ended) -> set[str]:
    """The packages that a command imported."""
    lines = [line for line in ended.errors.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}
