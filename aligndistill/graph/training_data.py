"""The stages that make what students learn from: prompts, candidates, verdicts, rankings, a reward model; of each round."""

from collections.abc import Mapping, Sequence

from aligndistill.config.labels import Revise
from aligndistill.config.rounds import LatestShare, Round
from aligndistill.config.run import RunConfig
from aligndistill.config.schema import models_of
from aligndistill.graph.elicited import elicited_prompts
from aligndistill.graph.filters import filtered_prompts, filtered_rankings
from aligndistill.graph.round_stages import RoundStages
from aligndistill.stages import (
    audit,
    candidates,
    prompts,
    rankings,
    revisions,
    reward_model,
    rounds,
    second_verdicts,
    verdicts,
    weak_prompts,
)
from aligndistill.store.stage import Given, Stage, pick, stage


def prompt_set(config: RunConfig, named: Given) -> Given:
    """The prompts, each in its split; with ready-made rankings, the rankings and their prompts."""
    if config.prompts is not None:
        read = stage("prompts", prompts.read, settings=config.prompts)
        return filtered_prompts(config, named, elicited_prompts(config, named, read))
    ready = stage("rankings", rankings.read, **ranking(config), **filtered_rankings(config, named))
    return {"rankings": ready, "prompts": stage("prompts", prompts.of_rankings, rankings=ready)}


def ranking(config: RunConfig) -> Given:
    """The settings of the stage `rankings`. `learns_ties` only decides whether a run without an order stops there."""
    return {"settings": config.rankings, "conversational": config.conversational, "not_hashed": {"learns_ties": config.learns_ties}}


def preferences(
    config: RunConfig, each: Round, given: Given, written: Stage, models: Given, roles: Given, built: Sequence[RoundStages]
) -> Given:
    """The inputs that the students of a round may read, by name. Without a judge these are the prompts alone.

    `given` has the run's prompts or ready-made rankings, `written` those and what models wrote for the rounds so far, `built` are
    the rounds before. In a later round, students wait for
    `order`, which ends the rounds where the judge ordered no answers, or is too bad.
    """
    before, stop = {one.name: one.data for one in built}, built[-1].stop if built else None
    data = dict(given)
    if each.part is None:
        data["prompts"] = written
    else:
        data["prompts"] = part_of_prompts(config, each, given["prompts"], each.part, before, stop)
        if built and written is not built[-1].prompts:
            joining: Given = {"known": built[-1].prompts, "written": written}
            data["prompts"] = stage(each.of("prompts-round"), prompts.with_new, prompts=data["prompts"], **joining)
    judged: Given = pick(data, ("rankings",)) if "rankings" in data else {}
    if config.judge is not None and config.prompts is not None:
        judged = pick(data, ("prompts",))
        writing: Given = {"settings": config.candidates, "authors": pick(roles, config.candidates.authors), "seed": config.seed}
        writing |= {"held_out": config.held_out} if config.candidates.demonstrations else {}
        writing["not_hashed"] = {"prices": config.prices_of(config.candidates.authors)}
        revise = config.candidates.revise
        drafts = stage(each.of("drafts" if revise else "candidates"), candidates.make, **writing, **judged, waits_for=stop)
        judged["candidates"] = drafts if revise is None else revised(config, each, revise, drafts, data["prompts"], roles)
        judging: Given = {"judge": config.judge, "models": pick(roles, models_of(config.judge)), "seed": config.seed}
        judged["verdicts"] = stage(each.of("verdicts"), verdicts.make, **judging, **judged, probes=config.audit.probes)
    if judged:  # later stages wait for the audit without depending on it: a new limit rebuilds none of them
        auditing: Given = {"settings": config.audit_settings, "version": 2, "not_hashed": {"ends_rounds": bool(before)}}
        second = second_opinion(config, each, models, judged) if "verdicts" in judged else {}
        data = data | second | {"audit": stage(each.of("audit"), audit.make, **auditing, **judged, **second)}
    if "verdicts" in judged:
        making = ranking(config)
        making["not_hashed"] |= {"may_be_tied": bool(before)}
        made = stage(each.of("rankings"), rankings.make, **making, **judged, waits_for=data["audit"])
        data |= judged | {"rankings": made}
    if before:
        ending = pick(data, ("audit", "rankings")) | {"learns_ties": config.learns_ties}
        data["order"] = stage(each.of("order"), rounds.require_order, **ending)
        data |= with_earlier(config, each, data["rankings"], before)
    if config.reward_model is not None:
        backbone = {} if config.reward_model.model else pick(roles, ("start",))
        learning = backbone | {"settings": config.reward_model, "waits_for": ready(data)}
        learning["version"] = 2 if config.reward_model.lora is None else 3
        learning["rankings"] = learned_rankings(data)
        seeds = {f"reward_model-s{seed}": seed for seed in config.seeds} or {"reward_model": config.seed}
        trained = {name: stage(each.of(name), reward_model.make, seed=seed, **learning) for name, seed in seeds.items()}
        data = data | {"reward_model": next(iter(trained.values()))} | trained
    return data


def second_opinion(config: RunConfig, each: Round, models: Given, judged: Given) -> Given:
    """The second judge's verdicts on a sample, by name; none without one. It is the same in every round: of the run's `models`."""
    second = config.audit.second
    if second is None:
        return {}
    asking: Given = {
        "judge": second.judge,
        "models": pick(models, models_of(second)),
        "sample": second.prompts,
        "seed": config.seed,
    }
    return {"second_verdicts": stage(each.of("second_verdicts"), second_verdicts.make, **asking, **judged)}


def revised(config: RunConfig, each: Round, revise: Revise, drafts: Stage, prompts: Stage, roles: Given) -> Stage:
    """Candidates with their revisions by a model, which are judged like them."""
    revising: Given = {"settings": revise, "replaces": False, "authors": pick(roles, models_of(revise)), "seed": config.seed}
    revising["not_hashed"] = {"prices": config.prices_of(models_of(revise))}
    return stage(each.of("candidates"), revisions.make, candidates=drafts, prompts=prompts, **revising)


def part_of_prompts(
    config: RunConfig, each: Round, whole: Stage, part: int, before: Mapping[str, Given], stop: Stage | None
) -> Stage:
    """The training prompts of a round, and all held-out ones."""
    if each.weak is not None:
        known: Given = {"earlier": {name: data["prompts"] for name, data in before.items()}}
        *_, previous = before.values()
        known["rankings"] = previous["rankings"]
        drawing: Given = {"settings": each.part_size, "share": each.weak, "seed": config.seed, "waits_for": stop}
        drawing["not_hashed"] = {"parts": each.parts}
        return stage(each.of("prompts-part"), weak_prompts.part, prompts=whole, **known, **drawing)
    which: Given = {"prompts": whole, "part": part}
    if each.part_size is not None:
        weak = config.rounds is not None and config.rounds.weak is not None
        which["per_round"] = each.part_size.per_round
        which["not_hashed"] = {"parts": each.parts, "repeats": each.part_size.repeats, "weak": weak}
        return stage(each.of("prompts-part"), prompts.sized_part, **which)
    return stage(each.of("prompts-part"), prompts.part, parts=each.parts, **which)


def with_earlier(config: RunConfig, each: Round, latest: Stage, before: Mapping[str, Given]) -> Given:
    """The rankings of this round together with those of earlier ones, if its students learn from both."""
    match each.data:
        case "all":
            *_, previous = before.values()
            return {"all_rankings": stage(each.of("all_rankings"), rounds.join, before=learned_rankings(previous), latest=latest)}
        case LatestShare(latest=share):
            earlier = {name: data["rankings"] for name, data in before.items()}
            making: Given = {"pairs": config.rankings.pairs, "conversational": config.conversational, "seed": config.seed}
            mixed = stage(each.of("mixed_rankings"), rounds.mix, earlier=earlier, latest=latest, share=share, **making)
            return {"all_rankings": mixed}
    return {}


def ready(data: Given) -> Stage | None:
    """What training waits for without reading it, because it may stop the run, or end the rounds."""
    found: Stage | None = data.get("order", data.get("audit"))
    return found


def learned_rankings(data: Given) -> Stage | None:
    """What a round learns from: its rankings, or also those of earlier ones."""
    return data.get("all_rankings", data.get("rankings"))
