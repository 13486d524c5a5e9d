"""`aligndistill completion`: the script of a shell, for those who install it themselves. `app.py` registers it."""

from typing import Annotated, Literal

import typer


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell.", show_default=False)]) -> None:
    """Print the script with which a shell completes commands, runs, stages and config keys.

    For bash: source <(aligndistill completion bash)
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    name = "aligndistill"
    typer.echo(get_completion_script(prog_name=name, complete_var=f"_{name}_COMPLETE".upper(), shell=shell))
