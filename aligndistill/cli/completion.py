"""`aligndistill completion`: the script of a shell, for those who install it themselves. `app.py` registers it."""

from typing import Annotated, Any, Literal

import typer
from typer.core import TyperArgument, TyperOption

NAME = "aligndistill"
ASKED = f"_{NAME}_COMPLETE".upper()
"""The variable in which a shell says that it asks what to complete."""
WRITES = {"--install-completion", "--show-completion"}
"""Typer's options that write a script."""
OWN_BASH = """
%(complete_func)s_open() {
    local number last=-1 prefix=
    local -a words
    for ((number = 0; number <= COMP_CWORD; number++)); do
        if ((number > 1)) && [[ ${COMP_WORDS[number]} == : || ${COMP_WORDS[number - 1]} == : ]]; then
            words[last]=${words[last]}${COMP_WORDS[number]}
        else
            last=$((last + 1))
            words[last]=${COMP_WORDS[number]}
        fi
    done
    [[ $COMP_WORDBREAKS == *:* && ${words[last]} != [\\"\\']* ]] && prefix=${words[last]%%"${words[last]##*:}"}
    COMP_WORDS=("${words[@]}")
    COMP_CWORD=$last
    %(complete_func)s "$@"
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o default -F %(complete_func)s_open %(prog_name)s
"""
"""What typer's script for bash lacks, written for bash 3.2, which macOS has.

`RUN:STUDENT`, which bash splits at the colon, is one word again; bash gets what follows its last colon, or if quoted all.
No space follows what goes on, as `seed=` and `runs/` do.
"""


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="The shell", show_default=False)],
) -> None:
    """Print the script with which a shell completes commands, runs, stages and config keys

    For bash: source <(aligndistill completion bash)
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    extend_bash()
    typer.echo(get_completion_script(prog_name=NAME, complete_var=ASKED, shell=shell))


def extend_bash() -> None:
    """Add to the script that typer writes for bash, here and by its own options."""
    from typer._completion_shared import COMPLETION_SCRIPT_BASH, _completion_scripts

    _completion_scripts["bash"] = COMPLETION_SCRIPT_BASH + OWN_BASH


def keep_texts() -> None:
    """Leave what was typed before as text: nothing reads its value, and typer's converters are most of the time of completing."""

    def unchanged(self: object, ctx: object, value: Any) -> Any:
        return value

    for kind in (TyperArgument, TyperOption):
        kind.process_value = unchanged  # type: ignore[method-assign,assignment]
