"""The budget for servers: before each request, the most that it can cost is reserved.

The limits therefore hold with any number of concurrent requests. If a server does not report tokens, they are estimated from
the prompt and the answer.
"""

import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel

from aligndistill.config.budget import Budget, Price
from aligndistill.errors import BudgetError
from aligndistill.records import Usage

FREE = Price(prompt=0.0, completion=0.0)
POLL_SECONDS = 0.02


class Spending(BaseModel):
    """The cost of one or more requests.

    Attributes:
        stage: the stage of the run that asked.
        seconds: from sending a request to the complete answer.
    """

    model: str = ""
    stage: str = ""
    requests: int = 0
    tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0


class SpendingLog(Protocol):
    """A log of spending, possibly shared with other processes."""

    def add(self, entry: Spending) -> None:
        """Append an entry; it survives the end of the process."""
        ...

    def read_new(self) -> Iterable[Spending]:
        """The entries written by any process since the last call."""
        ...


@dataclass
class Reservation:
    """The reserved budget of a request in flight. Set `cost` when it is known."""

    cost: Usage
    seconds: float = 0.0


class Account:
    """Admits requests within the budget. Thread-safe."""

    def __init__(self, budget: Budget, log: SpendingLog) -> None:
        self._budget = budget
        self._log = log
        self._lock = threading.Lock()
        self._spent = Spending()
        self._reserved = Spending()
        self.stage = ""
        """The stage that asks now."""

    @property
    def spent(self) -> Spending:
        """The spending of all processes so far."""
        with self._lock:
            self._read()
            return self._spent.model_copy()

    @asynccontextmanager
    async def reserve(self, model: str, at_most: Usage) -> AsyncIterator[Reservation]:
        """Reserve the most that a request can cost while it is in flight, then log its actual cost.

        Waits while the reservations of other requests leave too little.

        Args:
            model: the model's name on its server.
            at_most: the most that the request can use.

        Raises:
            BudgetError: the remaining budget is too small.
        """
        import asyncio  # imported late: `plan` reads the spending without sending requests

        price = self._budget.prices.get(model, FREE)
        most = _amounts(model, at_most, price)
        while not self._try_reserve(most):
            await asyncio.sleep(POLL_SECONDS)
        reservation = Reservation(Usage(calls=1))  # a failed request counts as one request without tokens
        try:
            yield reservation
        finally:
            entry = _amounts(model, reservation.cost, price).model_copy(
                update={"seconds": reservation.seconds, "stage": self.stage}
            )
            with self._lock:
                self._log.add(entry)
                self._reserved = _sum(self._reserved, most, -1)

    def _read(self) -> None:
        for entry in self._log.read_new():
            self._spent = _sum(self._spent, entry)

    def _try_reserve(self, most: Spending) -> bool:
        """Reserve an amount; False if that depends on the final cost of requests in flight.

        Raises:
            BudgetError: it would not fit even if the requests in flight cost nothing.
        """
        with self._lock:
            self._read()
            for name, limit in (("requests", self._budget.requests), ("tokens", self._budget.tokens), ("usd", self._budget.usd)):
                spent, more = getattr(self._spent, name), getattr(most, name)
                if limit is not None and spent + more > limit:
                    raise BudgetError(
                        f"the budget is spent: {_amount(name, spent)} of {_amount(name, limit)}, and the next request may need "
                        f"{_amount(name, more)}. Answers received so far are saved. "
                        f"Raise budget.{name} and run the same command again to resume."
                    )
                if limit is not None and spent + getattr(self._reserved, name) + more > limit:
                    return False
            self._reserved = _sum(self._reserved, most)
            return True


def _amounts(model: str, usage: Usage, price: Price) -> Spending:
    usd = price.usd(usage.prompt_tokens, usage.completion_tokens)
    return Spending(model=model, requests=usage.calls, tokens=usage.prompt_tokens + usage.completion_tokens, usd=usd)


def _sum(one: Spending, other: Spending, sign: int = 1) -> Spending:
    return Spending(
        requests=one.requests + sign * other.requests,
        tokens=one.tokens + sign * other.tokens,
        usd=one.usd + sign * other.usd,
        seconds=one.seconds + sign * other.seconds,
    )


def _amount(name: str, amount: float) -> str:
    return f"{amount:.6g} USD" if name == "usd" else f"{amount:,} {name}"
