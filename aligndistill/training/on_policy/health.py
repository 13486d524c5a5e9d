"""Warnings about an on-policy run, from its log: each names the cause and the setting to change.

Pure functions of the log's entries, so a resumed run warns as an uninterrupted one does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from aligndistill.config.objectives import OnPolicyDistil, Ppo

WINDOW = 3
"""The number of updates that are averaged, at the beginning and at the end."""

LONG = 5
"""The number of consecutive updates after which a problem is reported."""


@dataclass(frozen=True)
class HealthWarning:
    """A problem: the update where it began, the cause, and what to do."""

    name: str
    update: int
    text: str


def health(entries: Sequence[Mapping[str, float]], settings: Ppo | OnPolicyDistil) -> list[HealthWarning]:
    """The problems after the last of the entries, which are in order of updates."""
    entries = [entry for entry in entries if "update" in entry]
    if len(entries) < WINDOW:
        return []
    found = {"kl": _kl(entries, settings), "critic": _critic(entries)} if isinstance(settings, Ppo) else {}
    found |= {"entropy": _entropy(entries, settings), "length": _length(entries, settings)}
    found |= {"overoptimised": _overoptimised(entries)} if isinstance(settings, Ppo) else {"unended": _unended(entries)}
    now = int(entries[-1]["update"])
    return [HealthWarning(name, now, text) for name, text in found.items() if text is not None]


def new_warnings(entries: Sequence[Mapping[str, float]], settings: Ppo | OnPolicyDistil) -> list[HealthWarning]:
    """The problems that the last update added."""
    entries = [entry for entry in entries if "update" in entry]
    before = {warning.name for warning in health(entries[:-1], settings)}
    return [warning for warning in health(entries, settings) if warning.name not in before]


def all_warnings(entries: Sequence[Mapping[str, float]], settings: Ppo | OnPolicyDistil) -> list[HealthWarning]:
    """All warnings of a run, each at the update where it began."""
    return [warning for end in range(1, len(entries) + 1) for warning in new_warnings(entries[:end], settings)]


def _kl(entries: Sequence[Mapping[str, float]], settings: Ppo) -> str | None:
    """KL is above twice its target."""
    if settings.kl_target is None:
        return None
    recent = [entry["kl_k1_nats"] for entry in entries[-WINDOW:]]
    if min(recent) <= 2 * settings.kl_target:
        return None
    return (
        f"KL is {fmean(recent):.1f} nats per answer, more than twice its target of {settings.kl_target}: the penalty adapts more "
        "slowly than the policy moves. Lower learning_rate or kl_horizon, or raise kl_coefficient."
    )


def _critic(entries: Sequence[Mapping[str, float]]) -> str | None:
    """The critic has been worse than a constant for many updates."""
    if len(entries) <= LONG or max(entry["explained_variance"] for entry in entries[-LONG:]) >= 0:
        return None
    return (
        f"the critic's explained variance has been negative for {LONG} updates, so advantages are mostly noise. "
        "Raise critic_learning_rate or value_coefficient, set value_clip_range to null, or "
        "initialise it from a reward model (critic: separate)."
    )


def _entropy(entries: Sequence[Mapping[str, float]], settings: Ppo | OnPolicyDistil) -> str | None:
    """The policy hardly explores."""
    first, now = _ends(entries, "entropy_nats")
    if now >= 0.2 * first:
        return None
    advice = (
        "Raise kl_coefficient or entropy_coefficient, or lower learning_rate."
        if isinstance(settings, Ppo)
        else "Lower learning_rate, or take divergence forward_kl or jsd: reverse_kl gives up what the student rarely says."
    )
    return f"entropy fell from {first:.2f} to {now:.2f} nats per token: the policy hardly explores. {advice}"


def _length(entries: Sequence[Mapping[str, float]], settings: Ppo | OnPolicyDistil) -> str | None:
    """The length of answers has changed a lot."""
    first, now = _ends(entries, "length_tokens")
    if 0.5 * first <= now <= 1.5 * first:
        return None
    cause = (
        "the reward may depend on length. Check the samples; weigh the reward against length, change missing_eos_penalty, or raise "
        "kl_coefficient."
        if isinstance(settings, Ppo)
        else "check the samples. The teacher may answer at another length, or answers repeat themselves: then lower learning_rate, "
        "or take divergence forward_kl or jsd."
    )
    return f"answers went from {first:.0f} to {now:.0f} tokens: {cause}"


def _unended(entries: Sequence[Mapping[str, float]]) -> str | None:
    """Far fewer answers end by themselves than at first."""
    first, now = _ends(entries, "eos_rate")
    if now >= 0.8 * first:
        return None
    return (
        f"answers that end by themselves went from {first:.0%} to {now:.0%}: the others are cut at max_response_tokens, and the "
        "student does not learn where they would end. Raise max_response_tokens, or lower learning_rate."
    )


def _overoptimised(entries: Sequence[Mapping[str, float]]) -> str | None:
    """The score rises, but held-out answers do not improve."""
    looked = [entry for entry in entries if "held_out_win_rate" in entry]
    if len(looked) < WINDOW:
        return None
    before, now = looked[-WINDOW], looked[-1]
    rising = now["score"] > before["score"] + 0.25 * before["score_std"]
    if not rising or now["held_out_win_rate"] > before["held_out_win_rate"] + 0.01:
        return None
    return (
        f"the score rose from {before['score']:.2f} to {now['score']:.2f} while the held-out win rate went from "
        f"{before['held_out_win_rate']:.2f} to {now['held_out_win_rate']:.2f}: the policy is exploiting errors of the reward. Stop "
        "earlier (kl_budget), raise kl_coefficient, or improve the reward."
    )


def _ends(entries: Sequence[Mapping[str, float]], name: str) -> tuple[float, float]:
    """The means over the first and over the last updates."""
    return fmean(entry[name] for entry in entries[:WINDOW]), fmean(entry[name] for entry in entries[-WINDOW:])
