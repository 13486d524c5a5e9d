"""How a run was made: the command, the machine, the models' sizes, and the time and cost of every stage."""

from aligndistill.records import Record


class ModelSize(Record):
    """A model of the run.

    Attributes:
        name: its role or its name in the config.
        model: a Hub name, the name of its folder, or its name on its server.
        parameters: how many weights it has; None if that is not known here.
    """

    name: str
    model: str
    parameters: int | None = None


class StageTime(Record):
    """A finished stage: seconds of the call that finished it, when that was (UTC), and what its requests to servers cost."""

    stage: str
    finished: str
    seconds: float
    requests: int = 0
    tokens: int = 0
    usd: float = 0.0


class About(Record):
    """How a run was made.

    Attributes:
        command: the command that began the run; empty for a run from Python.
        machine: on which the report was made.
        models: of the config.
        stages: in the order of the run. One that another run made already has the time that it took there.
    """

    command: str
    machine: str
    models: tuple[ModelSize, ...]
    stages: tuple[StageTime, ...]

    @property
    def seconds(self) -> float:
        """Wall time of all stages."""
        return sum(one.seconds for one in self.stages)

    @property
    def usd(self) -> float:
        """Cost of all requests."""
        return sum(one.usd for one in self.stages)

    @property
    def requests(self) -> int:
        """Requests to servers of all stages."""
        return sum(one.requests for one in self.stages)

    @property
    def tokens(self) -> int:
        """Tokens of all requests."""
        return sum(one.tokens for one in self.stages)

    @property
    def finished(self) -> str:
        """When the last stage was finished, UTC; empty without stages."""
        return max((one.finished for one in self.stages), default="")
