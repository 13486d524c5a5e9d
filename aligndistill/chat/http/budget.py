"""What may be spent on servers, and what was: every request is paid for beforehand, at the most that it can cost.

So the limits hold however many requests are in flight. A server that reports fewer tokens than it uses, or none, is charged by
our own count of the prompt.
"""

import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel

from aligndistill.config.run import Budget, Price
from aligndistill.errors import BudgetError
from aligndistill.records import Usage

FREE = Price(prompt=0.0, completion=0.0)
POLL_SECONDS = 0.02


class Spending(BaseModel):
    """What one request cost, or many.

    Attributes:
        seconds: from sending it to the whole answer.
    """

    model: str = ""
    requests: int = 0
    tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0


class SpendingLog(Protocol):
    """Where spending is written down; other processes may write to the same."""

    def add(self, entry: Spending) -> None:
        """Write one down, so that it outlives the process."""
        ...

    def read_new(self) -> Iterable[Spending]:
        """What was written since the last time this was asked, by whomever."""
        ...


@dataclass
class Reservation:
    """A request that is under way. Set `cost` when it is known."""

    cost: Usage
    seconds: float = 0.0


class Account:
    """Lets requests through while the limits allow. Safe to share between threads."""

    def __init__(self, budget: Budget, ledger: SpendingLog) -> None:
        self._budget = budget
        self._ledger = ledger
        self._lock = threading.Lock()
        self._spent = Spending()
        self._reserved = Spending()

    @property
    def spent(self) -> Spending:
        """What all have spent so far."""
        with self._lock:
            self._read()
            return self._spent.model_copy()

    @asynccontextmanager
    async def reserve(self, model: str, at_most: Usage) -> AsyncIterator[Reservation]:
        """Hold back the most that a request can cost while it is under way, and write down what it did cost.

        Where too much is held back for others, it waits for what they will leave over.

        Raises:
            BudgetError: there is not so much left.
        """
        import asyncio  # only here and in `rate_limit.py`: a plan reads what was spent, and asks nobody

        price = self._budget.prices.get(model, FREE)
        most = _amounts(model, at_most, price)
        while not self._hold(most):
            await asyncio.sleep(POLL_SECONDS)
        reservation = Reservation(Usage(calls=1))  # a request that fails is one request, and no tokens
        try:
            yield reservation
        finally:
            entry = _amounts(model, reservation.cost, price).model_copy(update={"seconds": reservation.seconds})
            with self._lock:
                self._ledger.add(entry)
                self._reserved = _sum(self._reserved, most, -1)

    def _read(self) -> None:
        for entry in self._ledger.read_new():
            self._spent = _sum(self._spent, entry)

    def _hold(self, most: Spending) -> bool:
        """Hold back an amount; False while that depends on what is under way.

        Raises:
            BudgetError: not even if all that is under way came to nothing.
        """
        with self._lock:
            self._read()
            for name, limit in (("requests", self._budget.requests), ("tokens", self._budget.tokens), ("usd", self._budget.usd)):
                spent, more = getattr(self._spent, name), getattr(most, name)
                if limit is not None and spent + more > limit:
                    raise BudgetError(
                        f"the budget is spent: {_figure(name, spent)} of {_figure(name, limit)}, and the next request may need "
                        f"{_figure(name, more)}. What was answered is kept. Raise budget.{name} and give the same command again."
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


def _figure(name: str, amount: float) -> str:
    return f"{amount:.6g} USD" if name == "usd" else f"{amount:,} {name}"
