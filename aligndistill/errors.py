"""What can go wrong for a user. Each error says what happened, where, and what to do; the command line prints it alone.

The exit code is part of the contract: scripts and launchers tell a bad config from a run that may be started again.
"""


class UserError(Exception):
    """Something the user can mend. Its text is shown without a traceback."""

    exit_code = 2


class ConfigError(UserError):
    """A config file or a command-line argument that cannot be used as it stands."""

    exit_code = 2


class DataError(UserError):
    """Prompts, preferences, models or files that are missing, malformed or unusable."""

    exit_code = 3


class JudgeError(UserError):
    """A judge that could not be reached, refused to work, or gave no usable verdicts."""

    exit_code = 4


class TrainingError(UserError):
    """Training that cannot go on (a loss that is not finite, say); the last good checkpoint is kept."""

    exit_code = 1


class InvariantError(TrainingError):
    """Something that must hold by construction did not, so nothing learned from here on would mean anything.

    Attributes:
        invariant: its name, such as `ratio-is-one`.
    """

    def __init__(self, invariant: str, message: str) -> None:
        super().__init__(f"the invariant '{invariant}' does not hold: {message}")
        self.invariant = invariant


class Interrupted(UserError):
    """A run that was stopped and will go on from where it was when the same command is given again."""

    exit_code = 5


class BudgetError(UserError):
    """What may be spent on servers is spent; with more of it the same command goes on."""

    exit_code = 6
