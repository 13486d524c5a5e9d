"""Stops a judge early whose replies cannot be read, before the rest of the requests is spent on it."""

import math
from dataclasses import dataclass

from aligndistill.chat.protocol import CUT_IN_THOUGHTS, Reply
from aligndistill.errors import JudgeError

FIRST = 8
"""If none of so many first replies can be read, none will be: at a share of 20 % unreadable ones this happens once in 400,000."""

FEWEST = 32
"""From here on, the share of unreadable replies is compared with the limit."""

Z_95 = 1.959963984540054
LONGEST_QUOTE = 200


@dataclass
class ReadabilityWatch:
    """Counts the replies of one judge as they arrive. Replies that a server did not give are not counted.

    Attributes:
        limit: stop if the share of unreadable replies is above it with its whole 95 % interval (Wilson's); None never stops.
        read: replies with a verdict, those of earlier runs included: a resumed run asks first what could not be read.
    """

    limit: float | None
    read: int = 0
    not_read: int = 0
    first_unreadable: str = ""

    def readable(self) -> None:
        """Count a reply with a verdict."""
        self.read += 1
        self._check()

    def unreadable(self, reply: Reply) -> None:
        """Count a reply without a verdict.

        Raises:
            JudgeError: there are too many.
        """
        if reply.problem and not reply.thoughts and not reply.problem.startswith(CUT_IN_THOUGHTS):
            return
        self.not_read += 1
        self.first_unreadable = self.first_unreadable or _described(reply)
        self._check()

    def _check(self) -> None:
        counted = self.read + self.not_read
        if self.limit is None or not self.not_read:
            return
        if self.read == 0 and counted == FIRST:
            share = f"none of the judge's first {FIRST} verdicts could be read"
        elif counted >= FEWEST and wilson_lower(self.not_read, counted) > self.limit:
            share = (
                f"{self.not_read} of the judge's first {counted} verdicts could not be read (audit.stop.unparsed: {self.limit:g})"
            )
        else:
            return
        raise JudgeError(
            f"{share}, so the rest was not asked. {self.first_unreadable} The {self.read} verdicts that could be read are kept. "
            "Fix this and run the same command again."
        )


def _described(reply: Reply) -> str:
    """The first reply that could not be read, and what to do."""
    if reply.problem.startswith(CUT_IN_THOUGHTS):
        return (
            f"The model thinks before it answers: {reply.problem}, which begin {reply.thoughts[:LONGEST_QUOTE]!r}. "
            "Write thinking: off beside the model, or thinking: on with more thinking_tokens."
        )
    shown = (reply.text or reply.problem)[:LONGEST_QUOTE]
    return f"The first unreadable reply was {shown!r}. Change the template, raise max_new_tokens, or use another judge."


def wilson_lower(successes: int, n: int) -> float:
    """The lower end of the 95 % score interval of a share (Wilson 1927)."""
    share, z2 = successes / n, Z_95**2
    centre = share + z2 / (2 * n)
    spread = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (centre - spread) / (1 + z2 / n)
