"""`aligndistill completion`: the script of a shell, for those who install it themselves. `app.py` registers it."""

from typing import Annotated, Literal

import typer

NAME = "aligndistill"
NO_SPACE = f"""
_{NAME}_open() {{
    _{NAME}_completion "$@"
    [[ ${{#COMPREPLY[@]}} == 1 && ${{COMPREPLY[0]}} == *[=./] ]] && compopt -o nospace 2>/dev/null
    return 0
}}
complete -o default -F _{NAME}_open {NAME}
"""
"""For bash: no space behind what goes on, as `seed=` and `runs/` do."""


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell.", show_default=False)]) -> None:
    """Print the script with which a shell completes commands, runs, stages and config keys.

    For bash: source <(aligndistill completion bash)
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name=NAME, complete_var=f"_{NAME}_COMPLETE".upper(), shell=shell)
    typer.echo(script + (NO_SPACE if shell == "bash" else ""))
