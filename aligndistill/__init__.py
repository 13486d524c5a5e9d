"""aligndistill: a teacher judges what a student writes, and the student learns the teacher's preferences.

The Python API, of which docs/python.md has examples:

    import aligndistill as ad

    config = ad.load_config("configs/quickstart.yaml", ["seed=1"])
    print(ad.plan(config))
    run = ad.run(config)
    model, tokenizer = run.students["dpo"].load()

Names are imported on first use, so that importing the package is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aligndistill.commands.plan.plan import plan
    from aligndistill.config.load import load_config
    from aligndistill.config.run import RunConfig
    from aligndistill.errors import BudgetError, ConfigError, DataError, JudgeError, TrainingError, UserError
    from aligndistill.runs.results import Run, open_run
    from aligndistill.runs.run import run

__version__ = "0.1.0"
__all__ = [
    "BudgetError",
    "ConfigError",
    "DataError",
    "JudgeError",
    "Run",
    "RunConfig",
    "TrainingError",
    "UserError",
    "load_config",
    "open_run",
    "plan",
    "run",
]

_MODULES = {
    "Run": "aligndistill.runs.results",
    "RunConfig": "aligndistill.config.run",
    "load_config": "aligndistill.config.load",
    "open_run": "aligndistill.runs.results",
    "plan": "aligndistill.commands.plan.plan",
    "run": "aligndistill.runs.run",
}
"""Where each name is defined; the errors are in `errors.py`."""


def __getattr__(name: str) -> Any:
    """Import a name of the API on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'aligndistill' has no attribute '{name}'")
    from aligndistill.processes.environment import set_environment_defaults

    set_environment_defaults()  # before torch is imported: it reads some of them at import time only
    found = getattr(import_module(_MODULES.get(name, "aligndistill.errors")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
