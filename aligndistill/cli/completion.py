"""`aligndistill completion`: the script of a shell, for those who install it themselves. `app.py` registers it."""

from typing import Annotated, Any, Literal

import typer
from typer.core import TyperArgument, TyperOption

NAME = "aligndistill"
ASKED = f"_{NAME}_COMPLETE".upper()
"""The variable in which a shell says that it asks what to complete."""
NO_SPACE = f"""
_{NAME}_open() {{
    _{NAME}_completion "$@"
    [[ ${{#COMPREPLY[@]}} == 1 && ${{COMPREPLY[0]}} == *[=./] ]] && compopt -o nospace 2>/dev/null
    return 0
}}
complete -o default -F _{NAME}_open {NAME}
"""
"""For bash: no space behind what goes on, as `seed=` and `runs/` do."""


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="The shell", show_default=False)],
) -> None:
    """Print the script with which a shell completes commands, runs, stages and config keys

    For bash: source <(aligndistill completion bash)
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name=NAME, complete_var=ASKED, shell=shell)
    typer.echo(script + (NO_SPACE if shell == "bash" else ""))


def keep_texts() -> None:
    """Leave what was typed before as text: nothing reads its value, and typer's converters are most of the time of completing."""

    def unchanged(self: object, ctx: object, value: Any) -> Any:
        return value

    for kind in (TyperArgument, TyperOption):
        kind.process_value = unchanged  # type: ignore[method-assign,assignment]
