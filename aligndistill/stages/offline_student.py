"""Students trained on rankings."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from aligndistill.config.models import Lora
from aligndistill.config.objectives import OnPolicy
from aligndistill.config.offline_objectives import Distil
from aligndistill.config.students import Student
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel, ModelPointer, load_language_model, read_pointer
from aligndistill.models.scoring import score_groups
from aligndistill.models.tokenise import Limits
from aligndistill.processes.monitor import wait_for_others
from aligndistill.processes.progress import track
from aligndistill.processes.ranks import is_main_process, local_ranks, our_share
from aligndistill.stages.context import StageContext
from aligndistill.stages.student_folder import save_student
from aligndistill.stages.tokens import ranking_examples
from aligndistill.store.cache import Cache, cache_key
from aligndistill.store.stage import StageResult
from aligndistill.training.arguments import rounded_as_in_training, trains_in_bf16
from aligndistill.training.fit import Trained, TrainingJob
from aligndistill.training.offline.mismatched import MismatchedPairs, in_whole_steps, mismatched_groups
from aligndistill.training.offline.policy import train_policy
from aligndistill.training.offline.token_dataset import StoredExamples, Subset


def train_offline(
    context: StageContext,
    settings: Student,
    lora: Lora | None,
    seed: int,
    start_folder: Path,
    rankings: Path,
    reference: Path | None,
) -> StageResult:
    """Train one student by an objective on rankings, and save it as a Hugging Face folder.

    Args:
        reference: the frozen reference model of the objective.
    """
    objective = settings.objective
    assert not isinstance(objective, OnPolicy | Distil), "see ppo_student, trl_student and distilled_student"
    start = read_pointer(start_folder)
    policy = load_language_model(start.for_training(adapters=lora is not None))
    limits = Limits(settings.max_prompt_tokens, settings.max_response_tokens, policy.max_positions)
    examples = ranking_examples(context, rankings, policy.conversation, limits, objective.best_only, objective.learns_ties)
    if reference is not None:  # the reference is unloaded before the policy is loaded, so only one model is in memory
        model = policy if reference == start_folder else load_language_model(read_pointer(reference))
        identity, others = context.identities[reference], None
        if objective.needs_mismatched:
            groups = mismatched_groups(examples.groups, policy.max_positions)
            others = MismatchedPairs(groups, reference_logprobs(context, model, identity, groups, "of mismatched pairs"))
        examples = examples.with_reference(reference_logprobs(context, model, identity, examples.groups), others)
        del model
    kept = in_whole_steps(len(examples), settings.batch_size) if objective.needs_mismatched else len(examples)
    too_few = {"last step of an epoch under 4 prompts": len(examples) - kept} if kept < len(examples) else {}

    job = TrainingJob(context.name.removeprefix("student-"), settings, context.runtime, context.scratch, seed)
    kept_examples = Subset(examples, range(kept))
    trained = train_policy(policy, objective, lora, kept_examples, job)
    return finish(context, start, lora, policy, examples, trained, {**examples.dropped, **too_few}, kept)


def finish(
    context: StageContext,
    start: ModelPointer,
    lora: Lora | None,
    policy: LanguageModel,
    examples: StoredExamples,
    trained: Trained,
    dropped: Mapping[str, int],
    rankings: int,
) -> StageResult:
    """Save a student as a Hugging Face folder, with its log.

    Args:
        dropped: the examples that were not learned from, by reason.
        rankings: how many were.
    """
    save_student(context, start, lora, trained)
    if not is_main_process():
        return StageResult()
    return StageResult(
        counts={"rankings": rankings, "steps": trained.steps, **examples.cut},
        dropped={reason: count for reason, count in dropped.items() if count},
        metrics={"train_seconds": trained.seconds, "shares_prompt": policy.shares_prompt},
    )


def reference_logprobs(
    context: StageContext, reference: LanguageModel, identity: str, groups: Sequence[TokenGroup], which: str = "of the rankings"
) -> list[list[float]]:
    """The reference's log-probability of each response, nats: computed once per row and cached by content.

    Args:
        which: tells the calls of one stage apart; processes wait for each other at the end of each.
    """
    cache = Cache(context.caches / "logprobs.sqlite")
    model = f"{identity}{' in bfloat16' if trains_in_bf16() else ''}"
    keys = [[cache_key(model=model, prompt=g.prompt, response=response) for response in g.responses] for g in groups]
    known = cache.get_many([key for row in keys for key in row])
    ours = our_share(range(len(keys)), local_ranks())
    missing = [i for i in ours if not all(key in known for key in keys[i])]
    scores = score_groups(reference, Subset(groups, missing), context.runtime.per_device_eval_batch_size)
    with rounded_as_in_training():
        for scored in track(scores, f"reference log-probs {which}", len(missing)):
            for key, response in zip(keys[missing[scored.index]], scored.responses, strict=True):
                known[key] = response.logprob_nats
                cache.put(key, response.logprob_nats)
    wait_for_others(f"{context.folder.name} has its reference log-probs {which}", local_ranks())
    known |= cache.get_many([key for row in keys for key in row if key not in known])
    cache.close()
    return [[known[key] for key in row] for row in keys]
