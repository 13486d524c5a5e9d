"""What commands print."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from aligndistill.config.run import RunConfig


def _echo_memory(config: "RunConfig") -> None:
    from aligndistill.commands.plan.stage_memory import planned_memory

    planned = planned_memory(config)
    if planned:
        typer.echo("\nmemory of each process while it trains, GiB (an estimate: leave a fifth free)")
        typer.echo(f"{'':24} {'GPU':>8} {'weights':>8} {'grads':>8} {'Adam':>8} {'activ.':>8} {'host':>8}")
    for name, memory in planned.items():
        parts = (memory.gpu, memory.weights, memory.gradients, memory.optimizer, memory.activations, memory.host)
        typer.echo(f"{name:24} " + " ".join(f"{part / 2**30:8.2f}" for part in parts))


def print_table(table: "Table") -> None:
    """Show a table on standard output, as wide as it needs to be where that is no terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 160)
    console.print(table)
