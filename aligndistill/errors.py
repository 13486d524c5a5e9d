"""Errors for users. Each message says what happened, where, and what to do; the command line prints only the message.

Exit codes are part of the interface: scripts and launchers use them to tell a bad config from a run that can be resumed.
"""


class UserError(Exception):
    """An error that the user can fix. Its message is shown without a traceback."""

    exit_code = 2


class ConfigError(UserError):
    """An invalid config file or command-line argument."""

    exit_code = 2


class DataError(UserError):
    """Prompts, preferences, models or files that are missing, malformed or unusable."""

    exit_code = 3


class RefusedConversation(DataError):
    """A conversation that a model's chat template does not accept."""


class JudgeError(UserError):
    """A judge that cannot be reached, rejects requests, or gives no usable verdicts."""

    exit_code = 4


class TrainingError(UserError):
    """Training that cannot continue (for example, a loss that is not finite); the last good checkpoint is kept."""

    exit_code = 1


class InvariantError(TrainingError):
    """A violated invariant: training on would give meaningless results.

    Attributes:
        invariant: its name, such as `ratio-is-one`.
    """

    def __init__(self, invariant: str, message: str) -> None:
        super().__init__(f"the invariant '{invariant}' is violated: {message}")
        self.invariant = invariant


class Interrupted(UserError):
    """A run that was stopped. Running the same command again resumes it."""

    exit_code = 5


class BudgetError(UserError):
    """The budget for servers is spent. Raise it and run the same command again to resume."""

    exit_code = 6
