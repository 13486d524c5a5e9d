"""A conversation in the terminal with one model, or with two side by side."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aligndistill.commands.chat.speaker import Params, Speaker
from aligndistill.config.paths import at_home
from aligndistill.errors import ConfigError, UserError
from aligndistill.reporting.texts import visible

SIDE_BY_SIDE_COLUMNS = 80
"""Two answers are beside each other on a terminal of at least this width."""

HELP = """\
/reset             start a new conversation
/system [TEXT]     set the system message; without a text, remove it
/params [KEY=VALUE ...]  show or set temperature, max_new_tokens and seed
/save FILE         add the conversation to a JSONL file
/help              show this
/quit              exit, as Ctrl-D does"""


@dataclass
class Session:
    """The models that answer, and how.

    Attributes:
        console: where answers are shown.
        takes_lines: a person types, and so may change the parameters.
    """

    speakers: Sequence[Speaker]
    params: Params
    console: Console
    takes_lines: bool = True

    def run(self, lines: Iterator[str]) -> None:
        """Answer each line, until `/quit` or the end of the input."""
        for line in lines:
            if line.strip() == "/quit":
                return
            if line.strip():
                self.take(line.strip())

    def take(self, line: str) -> None:
        """Do what a line says: a command, or a user turn. A mistake is named, and the session stays."""
        name, _, rest = line.partition(" ")
        try:
            if name.startswith("/"):
                commands: dict[str, Callable[[str], str]] = {
                    "/reset": self._reset,
                    "/system": self._system,
                    "/params": self._params,
                    "/save": self._save,
                    "/help": lambda _: HELP,
                }
                if name not in commands:
                    raise ConfigError(f"there is no command {name}.\n{HELP}")
                self._say(commands[name](rest.strip()))
            else:
                self.show(line)
        except UserError as error:
            self._say(str(error))

    def show(self, text: str) -> None:
        """Show every model's answer to a user turn. Ctrl-C ends the answer, and what was said stays in the conversation."""
        try:
            if len(self.speakers) > 1 and self.console.width >= SIDE_BY_SIDE_COLUMNS:
                self._beside(text)
                return
            for speaker in self.speakers:
                if len(self.speakers) > 1:
                    self._say(f"[{speaker.name}]")
                with closing(speaker.answer(text, self.params)) as answer:
                    for piece in answer:
                        self._say(visible(piece), end="")
                self._say(f" {self._cut_text()}" if speaker.is_cut else "")
        except KeyboardInterrupt:
            self._say(" (stopped)")

    def _beside(self, text: str) -> None:
        """All answers in columns, once they are complete."""
        grid = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, expand=True)
        for speaker in self.speakers:
            grid.add_column(Text(speaker.name), ratio=1, overflow="fold")
        with self.console.status("answering"):
            answers = ["".join(speaker.answer(text, self.params)) for speaker in self.speakers]
        cut = [f" {self._cut_text()}" if speaker.is_cut else "" for speaker in self.speakers]
        grid.add_row(*(Text(visible(answer) + mark) for answer, mark in zip(answers, cut, strict=True)))
        self.console.print(grid)

    def _cut_text(self) -> str:
        return self.params.cut_text(self.takes_lines)

    def _say(self, text: str, end: str = "\n") -> None:
        self.console.print(text, end=end, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def _reset(self, _: str) -> str:
        for speaker in self.speakers:
            speaker.turns.clear()
        return "New conversation."

    def _system(self, text: str) -> str:
        for speaker in self.speakers:
            speaker.system = text
        return "The system turn is set." if text else "There is no system turn now."

    def _params(self, text: str) -> str:
        self.params = self.params.changed(text)
        return str(self.params)

    def _save(self, file: str) -> str:
        if not file:
            raise ConfigError("give a file: /save FILE")
        try:
            with at_home(file).open("a", encoding="utf-8") as lines:
                for speaker in self.speakers:
                    turns = [message.model_dump() for message in speaker.messages]
                    lines.write(
                        json.dumps({"model": speaker.name, **asdict(self.params), "messages": turns}, ensure_ascii=False) + "\n"
                    )
        except OSError as error:
            raise ConfigError(f"cannot write {file}: {error.strerror}") from None
        return f"saved in {file}"
