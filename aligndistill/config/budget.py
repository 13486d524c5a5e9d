"""The schema of the budget."""

from pydantic import Field

from aligndistill.config.section import Section


class Price(Section):
    """The price of a model on a server, US dollars per million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The cost of this many tokens, US dollars."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class Budget(Section):
    """Limits on what a run may spend on servers, including resumed runs. The run stops at a limit; raise it to resume.

    Attributes:
        requests: HTTP requests, including retries.
        tokens: prompt and completion tokens.
        usd: US dollars, computed from `prices`.
        prices: price by the model's `name` on its server.
    """

    requests: int | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)
    usd: float | None = Field(default=None, ge=0)
    prices: dict[str, Price] = Field(default={})
