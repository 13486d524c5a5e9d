"""A plan as lines of text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aligndistill.chat.http.adaptive import limit_of
from aligndistill.chat.http.budget import Spending
from aligndistill.commands.plan.chats import Estimate
from aligndistill.commands.plan.memory import GIB, MemoryEstimate
from aligndistill.config.budget import Budget
from aligndistill.reporting.writing import duration, hidden_columns, wrapped

ASSUMED_SECONDS = 2.0
"""Seconds for one request, if none of this run has been timed."""

SECONDS_PER_MINUTE = 60
HEADINGS = ("stage", "model", "prompts", "verdicts", "cached", "requests", "prompt tokens", "answer tokens", "USD", "time")


def request_lines(
    estimates: Sequence[tuple[str, Estimate]], budget: Budget, spent: Iterable[Spending], width: int | None = None
) -> Iterator[str]:
    """A line for each stage and model: requests, tokens, price and time; then the assumptions and the budget."""
    yield ""
    rows = [HEADINGS, *(_row(name, one, budget, spent) for name, one in estimates)]
    yield from aligned(rows, (0, 1), ("cached", "verdicts", "prompts", "prompt tokens", "answer tokens"), width)
    yield ""
    for line in _remarks(budget, [one for _, one in estimates], spent):
        yield from wrapped(line, width)


def memory_lines(planned: Mapping[str, MemoryEstimate], width: int | None = None) -> Iterator[str]:
    """A line for each training stage."""
    yield ""
    yield from wrapped("estimated peak training memory per process, GiB (keep 20% free)", width)
    heads = ("stage", "peak", "weights", "grads", "Adam", "activ.", "host")
    parts = {name: (one.gpu, one.weights, one.gradients, one.optimizer, one.activations, one.host) for name, one in planned.items()}
    rows = [(name, *(f"{part / GIB:.2f}" for part in some)) for name, some in parts.items()]
    yield from aligned([heads, *rows], (0,), heads[:1:-1], width)


# ---------------------------------------------------------------------------------------------------------- formatting


def _row(stage: str, one: Estimate, budget: Budget, spent: Iterable[Spending]) -> tuple[str, ...]:
    name = one.model if one.server is not None else f"{one.model} (here)"
    counts = (one.prompts, one.verdicts, one.cached, one.asked.calls, one.asked.prompt_tokens, one.asked.completion_tokens)
    about = "" if one.certain else "<= "
    shown = [f"{about if number and count else ''}{count:,}" for number, count in enumerate(counts)]
    price = price_usd(one, budget)
    paid = "" if one.server is None else "no price" if price is None else f"{price:.2f}"
    return (stage, name, *shown, paid, duration(request_seconds(one, spent)) if one.server is not None else "")


def price_usd(one: Estimate, budget: Budget) -> float | None:
    """The most that the requests cost, US dollars; None without a price."""
    if one.server is None:
        return 0.0
    price = budget.prices.get(one.server.name)
    if price is None:
        return None
    return price.usd(one.asked.prompt_tokens, one.asked.completion_tokens)


def request_seconds(one: Estimate, spent: Iterable[Spending]) -> float:
    """The time of the requests at the server's concurrency and limits per minute."""
    assert one.server is not None
    timed = [entry.seconds for entry in spent if entry.model == one.server.name and entry.seconds > 0]
    each = sum(timed) / len(timed) if timed else ASSUMED_SECONDS
    seconds = [one.asked.calls * each / limit_of(one.server.concurrency).current]
    tokens = one.asked.prompt_tokens + one.asked.completion_tokens
    for amount, limit in ((one.asked.calls, one.server.requests_per_minute), (tokens, one.server.tokens_per_minute)):
        if limit is not None:
            seconds.append(amount / limit * SECONDS_PER_MINUTE)
    return max(seconds)


@dataclass(frozen=True)
class _Limit:
    name: str
    limit: float | None
    spent: float
    planned: float


def _remarks(budget: Budget, estimates: Iterable[Estimate], spent: Iterable[Spending]) -> Iterator[str]:
    asked = [one for one in estimates if one.server is not None]
    if any(one.exact_tokens for one in asked):
        yield "Prompt tokens are counted with the model's tokenizer if the model runs here or `tokenizer` is set."
    if any(not one.exact_tokens for one in asked):
        yield "Without a tokenizer, prompt tokens are estimated as one per three bytes, which is usually too many."
    yield "Answer tokens are an upper bound: max_new_tokens each, and thinking_tokens if the model is known to think."
    yield "`<=`: if no candidate is dropped and all are that long."
    for name, tokens in sorted({(one.model, one.possible_thought_tokens) for one in asked if one.asked.calls}):
        if tokens:
            yield f"If {name} turns out to think, and nothing switches that off, each answer may take up to {tokens:,} tokens more."
    untimed = {one.server.name for one in asked if one.server} - {entry.model for entry in spent if entry.seconds > 0}
    if untimed:
        yield f"Time assumes {ASSUMED_SECONDS:g} s per request for {', '.join(sorted(untimed))}; measured once the run has started."
    prices = [price_usd(one, budget) or 0.0 for one in asked]
    limits = (
        _Limit("requests", budget.requests, sum(one.requests for one in spent), sum(one.asked.calls for one in asked)),
        _Limit(
            "tokens",
            budget.tokens,
            sum(one.tokens for one in spent),
            sum(one.asked.prompt_tokens + one.asked.completion_tokens for one in asked),
        ),
        _Limit("usd", budget.usd, sum(one.usd for one in spent), sum(prices)),
    )
    for one in limits:
        if one.limit is not None:
            enough = "enough" if one.spent + one.planned <= one.limit else "NOT ENOUGH: the run will stop there, and can be resumed"
            yield f"budget.{one.name}: {one.limit:,.10g}, spent {one.spent:,.10g}, planned {one.planned:,.10g}: {enough}."


def aligned(
    rows: Sequence[tuple[str, ...]], left: Sequence[int], leaves_out: Sequence[str] = (), width: int | None = None
) -> Iterator[str]:
    """Rows as lines with aligned columns, the headings first. A column without a value is left out.

    Args:
        left: the columns that are aligned to the left.
        leaves_out: headings of columns that go, the first one first, until the lines are at most `width` characters; a last line
            names them. What is still too long goes on below its last column.
    """
    heads = rows[0]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    shown = [column for column in range(len(heads)) if any(row[column] for row in rows[1:])]
    hidden = []
    for head in leaves_out:
        if width is None or sum(widths[column] + 2 for column in shown) - 2 <= width:
            break
        if heads.index(head) in shown:
            shown.remove(heads.index(head))
            hidden.append(head)
    last = " " * sum(widths[column] + 2 for column in shown[:-1])
    for row in rows:
        cells = [row[column].ljust(widths[column]) if column in left else row[column].rjust(widths[column]) for column in shown]
        yield from wrapped("  ".join(cells).rstrip(), width, last)
    if hidden:
        yield from wrapped(hidden_columns(hidden, "--json"), width)
