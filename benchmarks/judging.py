"""How many calls a ranking needs: every way of choosing comparisons against a simulated teacher. `python -m benchmarks.judging`.

Each prompt has k candidates whose true qualities are drawn from a normal distribution. The teacher shown i before j answers with

    logit P(i better) = quality_i - quality_j + bias + noise,

where the noise is new for every prompt, pair and order (and is the same when that is asked again). A soft teacher gives the
probability, as from log-probabilities; a hard one gives its verdict alone. The judge and the ranking are the product's own. Figures
are Kendall's tau between ranking and true order, averaged over prompts, with its standard error. Nothing leaves this machine.
"""

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import kendalltau

from aligndistill.chat.scripted import ScriptedChat
from aligndistill.judges.pairwise import PairwiseJudge
from aligndistill.judges.protocol import Task
from aligndistill.judges.templates import Template
from aligndistill.preferences.scores import first_position_logit, scores_from_comparisons
from aligndistill.records import Candidate, Comparison, Message

SPREAD = 1.5
"""Standard deviation of the true qualities, logits: two candidates differ by 1.7 on average, P = 0.85."""

TEMPLATE = Template("{prompt}|{first}|{second}")


@dataclass(frozen=True)
class Teacher:
    """A simulated teacher: what it knows, errs and prefers, in logits."""

    noise: float
    bias: float
    soft: bool

    def logit(self, prompt: str, first: str, second: str) -> float:
        """Its leaning towards the answer shown first; an answer's text is its quality."""
        noise = random.Random(f"{prompt}|{first}|{second}").gauss(0, self.noise)
        return float(first) - float(second) + self.bias + noise

    def chat(self) -> ScriptedChat:
        """It as a chat model."""

        def logit(messages: tuple[Message, ...]) -> float:
            prompt, first, second = messages[0].content.split("|")
            return self.logit(prompt, first, second)

        def logprobs(messages: tuple[Message, ...], labels: Sequence[str]) -> tuple[float, ...]:
            x = logit(messages)
            return (-math.log1p(math.exp(-x)), -math.log1p(math.exp(x)))

        return ScriptedChat(lambda messages, sample: "A" if logit(messages) > 0 else "B", logprobs if self.soft else None)


@dataclass(frozen=True)
class Way:
    """A way to choose comparisons."""

    comparisons: str
    both_orders: bool

    def __str__(self) -> str:
        return f"{self.comparisons}, {'both orders' if self.both_orders else 'one order'}"


@dataclass(frozen=True)
class Measured:
    """Calls and tau per prompt, averaged over prompts, and tau's standard error."""

    calls: float
    tau: float
    error: float


def tasks_of(k: int, prompts: int, seed: int = 2026) -> list[Task]:
    """Prompts whose candidates are their own true qualities; others than the plans' constants were tuned on (seeds 0 and 9)."""
    tasks = []
    for number in range(prompts):
        draw = random.Random(f"{seed} {k} {number}")
        texts = [repr(draw.gauss(0, SPREAD)) for _ in range(k)]
        name = f"prompt {number}"
        candidates = tuple(Candidate(id=text, prompt_id=name, text=text, author="simulated") for text in texts)
        tasks.append(Task(name, (Message(role="user", content=name),), candidates))
    return tasks


def measure(teacher: Teacher, way: Way, tasks: Sequence[Task]) -> Measured:
    """Judge the tasks, rank, and compare with the truth."""
    judge = PairwiseJudge("simulated", teacher.chat(), TEMPLATE, both_orders=way.both_orders, comparisons=way.comparisons)
    verdicts: dict[str, list[Comparison]] = {}
    for judged in judge.judge(tasks):
        verdicts[judged.prompt_id] = [verdict for verdict in judged.verdicts if isinstance(verdict, Comparison)]
    advantage = first_position_logit([verdict for of_one in verdicts.values() for verdict in of_one])
    taus = []
    for task in tasks:
        scores = scores_from_comparisons(verdicts[task.prompt_id], advantage)
        texts = [candidate.text for candidate in task.candidates]
        tau = kendalltau([float(text) for text in texts], [scores.get(text, 0.0) for text in texts]).statistic
        taus.append(0.0 if math.isnan(tau) else float(tau))  # all tied: no order was found
    calls = sum(verdict.usage.calls for of_one in verdicts.values() for verdict in of_one) / len(tasks)
    return Measured(calls, fmean(taus), stdev(taus) / math.sqrt(len(taus)))


def ways(k: int) -> list[Way]:
    """The ways compared for k candidates; `random` gets as many comparisons as `swiss` may make."""
    rounds = math.ceil(math.log2(k)) + 1
    chosen = [Way("all", True), Way("all", False)]
    chosen += [Way(name, both) for name in ("sort", "swiss") for both in (True, False)]
    return [*chosen, Way(f"random({k * rounds // 2})", False)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each teacher and k."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=250)
    parser.add_argument("--k", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--bias", type=float, default=0.5)
    options = parser.parse_args(arguments)
    for soft in (True, False):
        for noise in options.noise:
            teacher = Teacher(noise, options.bias, soft)
            kind = "soft" if soft else "hard"
            print(f"\n{kind} verdicts, noise {noise:g}, position bias {options.bias:g}, quality spread {SPREAD:g} (logits)")
            print(f"{'k':>3}  {'comparisons':26} {'calls':>6} {'of all':>7} {'tau':>7} {'+-':>6} {'lost':>7}")
            for k in options.k:
                tasks = tasks_of(k, options.prompts)
                everything: Measured | None = None
                for way in ways(k):
                    found = measure(teacher, way, tasks)
                    everything = everything or found
                    share, lost = found.calls / everything.calls, everything.tau - found.tau
                    print(
                        f"{k:>3}  {way!s:26} {found.calls:6.1f} {share:7.0%} {found.tau:7.3f} {found.error:6.3f} {lost:7.3f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
