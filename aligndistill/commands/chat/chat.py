"""`aligndistill chat`: talk to a model of a run."""

import sys
from collections.abc import Iterator
from contextlib import suppress

import typer

from aligndistill.commands.chat.models import Chosen, choose
from aligndistill.errors import DataError


def chat(model: str, against: str | None, prompt: str | None, system: str) -> None:
    """Talk to a model, or print one answer.

    Args:
        model: `RUN` or `RUN:STUDENT`.
        against: another model of the same run, or `RUN:STUDENT`, that answers beside it.
        prompt: answer this and end; `-` reads it from standard input.
        system: the text of a system turn; empty for none.

    Raises:
        UserError: no such run or model, or it cannot answer.
    """
    chosen = [choose(model)]
    if against is not None:
        chosen.append(choose(against if ":" in against else f"{chosen[0].run}:{against}"))
    for one in chosen:
        typer.echo(f"loading {one.name} from {one.folder}", err=True)  # before the imports, which take seconds
    from rich.console import Console

    from aligndistill.commands.chat.session import Session
    from aligndistill.commands.chat.speaker import Params, Speaker

    config = chosen[0].config
    sampling = config.answer_sampling
    params = Params(sampling.temperature, sampling.max_new_tokens, config.seed)
    speakers = [Speaker(_name(one, chosen), one.load(), system) for one in chosen]
    if prompt is None:
        typer.echo(f"{params}. /help shows the commands; Ctrl-D ends.", err=True)
        Session(speakers, params, Console(highlight=False)).run(_lines())
        return
    text = sys.stdin.read().strip() if prompt == "-" else prompt
    if not text:
        raise DataError("the prompt is empty: give --prompt TEXT, or a text on standard input for --prompt -.")
    if len(speakers) == 1 and not sys.stdout.isatty():
        typer.echo("".join(speakers[0].answer(text, params)))  # as it is: a script reads it
        if speakers[0].is_cut:
            typer.echo(params.cut_text(may_change=False), err=True)
    else:
        Session(speakers, params, Console(highlight=False), takes_lines=False).show(text)


def _name(one: Chosen, chosen: list[Chosen]) -> str:
    """The model's name, with its run's where there are two runs."""
    return one.name if len({other.run for other in chosen}) == 1 else f"{one.run}:{one.name}"


def _lines() -> Iterator[str]:
    """What a person types; arrow keys recall earlier lines where the terminal can."""
    with suppress(ImportError):
        import readline  # noqa: F401  (importing it gives `input` its keys)
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            typer.echo()
            return
