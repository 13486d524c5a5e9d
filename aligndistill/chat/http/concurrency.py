"""Runs asynchronous calls concurrently and yields their results to synchronous code."""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aligndistill.errors import UserError

Session = TypeVar("Session")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Done(Generic[Result]):
    result: Result


@dataclass(frozen=True)
class _Ended:
    error: BaseException | None


def run_concurrently(
    session: AbstractAsyncContextManager[Session],
    call: Callable[[Session, Item], Awaitable[Result]],
    items: Iterable[Item],
    concurrency: int | Callable[[], int],
) -> Iterator[Result]:
    """Call for every item and yield the results as they arrive, in any order.

    The event loop runs in a thread. A new call starts only when the caller has processed a result and asks for the next, so at
    most `concurrency` results are in flight or unread: a killed process loses no more than these. If it is a function, it is called
    before each call starts; where the number has fallen, calls in flight are not cancelled.
    The first call that raises ends the iteration with its error. After a `UserError` (all requests rejected, budget spent) no
    new calls start, and calls in flight, which may cost money, are awaited first. After any other error, and when the iterator
    is closed, calls in flight are cancelled.
    """
    loop = asyncio.new_event_loop()
    most = concurrency if callable(concurrency) else lambda: concurrency
    occupied, changed = 0, asyncio.Event()  # only used in the loop's thread
    arrivals: queue.SimpleQueue[_Done[Result] | _Ended] = queue.SimpleQueue()

    failed: list[UserError] = []

    async def free_place() -> None:
        nonlocal occupied
        while occupied >= most():
            changed.clear()
            await changed.wait()
        occupied += 1

    def release() -> None:
        nonlocal occupied
        occupied -= 1
        changed.set()

    async def one(session: Session, item: Item) -> None:
        try:
            arrivals.put(_Done(await call(session, item)))
            changed.set()  # the number may have grown
        except UserError as error:
            failed.append(error)
            release()

    async def all_of_them() -> None:
        async with session as entered, asyncio.TaskGroup() as group:
            for item in items:
                await free_place()
                if failed:
                    break
                group.create_task(one(entered, item))
        if failed:
            raise failed[0]

    everything = loop.create_task(all_of_them())
    thread = threading.Thread(target=_run, args=(loop, everything, arrivals), name="calls in flight", daemon=True)
    thread.start()
    try:
        while isinstance(arrival := arrivals.get(), _Done):
            yield arrival.result
            loop.call_soon_threadsafe(release)
        if arrival.error is not None:
            raise arrival.error
    finally:
        loop.call_soon_threadsafe(everything.cancel)
        thread.join()
        loop.close()


def _run(loop: asyncio.AbstractEventLoop, everything: asyncio.Task[None], arrivals: "queue.SimpleQueue[Any]") -> None:
    try:
        loop.run_until_complete(everything)
    except asyncio.CancelledError:
        arrivals.put(_Ended(None))
    except BaseException as error:
        arrivals.put(_Ended(_first(error)))
    else:
        arrivals.put(_Ended(None))
    finally:
        # Here, because the caller's thread may be running its own event loop (in a notebook).
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
