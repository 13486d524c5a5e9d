"""A student: the start, aligned by one objective on the training rankings."""

from collections.abc import Sequence

from transformers import AutoModelForCausalLM

from aligndistill.config import BestOfN, Dpo, Lora, Online, Student
from aligndistill.models.groups import TokenGroup
from aligndistill.models.load import LanguageModel, load_language_model, read_pointer
from aligndistill.models.scoring import score_groups
from aligndistill.models.tokenise import Limits
from aligndistill.progress import track
from aligndistill.stages.stage import Made, Work, require_records, wait_for_others
from aligndistill.stages.tokens import ranking_examples
from aligndistill.stages.training_log import write_log
from aligndistill.store.cache import Cache, cache_key
from aligndistill.training.align import needs_reference, train_policy
from aligndistill.training.arguments import rounded_as_in_training, trains_in_bf16
from aligndistill.training.distributed import is_main_process, local_ranks, our_share
from aligndistill.training.job import Job
from aligndistill.training.save import save_model
from aligndistill.training.token_files import Picked


def make_student(work: Work, name: str, settings: Student, lora: Lora | None) -> Made:
    """Train one student and save it as an ordinary Hugging Face folder."""
    assert not isinstance(settings.objective, Online), "see online_students"
    start = read_pointer(work.inputs["start"])
    policy = load_language_model(start.for_training(adapters=lora is not None))
    limits = Limits(settings.max_prompt_tokens, settings.max_response_tokens, policy.max_positions)
    # Best-of-n looks at nothing but the best, so nothing else is computed; a ranking of ties says something to soft labels alone.
    best_only = isinstance(settings.objective, BestOfN)
    ties = isinstance(settings.objective, Dpo) and settings.objective.labels == "soft"
    examples = ranking_examples(work, policy.conversation, limits, best_only, ties)
    require_records(len(examples), "training rankings", examples.dropped)
    if needs_reference(settings.objective):
        examples = examples.with_reference(reference_logprobs(work, policy, examples.groups))

    trained = train_policy(policy, settings.objective, lora, examples, Job(name, settings, work.runtime, work.scratch, work.seed))
    save_model(trained, work.folder / "model", start, lora is not None, AutoModelForCausalLM)
    if not is_main_process():
        return Made()
    start.model_copy(update={"path": "model", "revision": None, "trust_remote_code": False}).write(work.folder)
    write_log(work.folder, trained)
    return Made(
        counts={"rankings": len(examples), "steps": trained.steps, **examples.cut},
        dropped=examples.dropped,
        figures={"train_seconds": trained.seconds, "shares_prompt": policy.shares_prompt},
    )


def reference_logprobs(work: Work, start: LanguageModel, groups: Sequence[TokenGroup]) -> list[list[float]]:
    """The frozen start's log-probability of each response, nats: computed once per row and kept by what it is made of.

    The start itself becomes the policy afterwards, so no second model is ever in memory.
    """
    cache = Cache(work.caches / "logprobs.sqlite")
    model = f"{work.identities['start']}{' in bfloat16' if trains_in_bf16() else ''}"
    keys = [[cache_key(model=model, prompt=g.prompt, response=response) for response in g.responses] for g in groups]
    known = cache.get_many([key for row in keys for key in row])
    ours = our_share(range(len(keys)), local_ranks())
    missing = [i for i in ours if not all(key in known for key in keys[i])]
    scores = score_groups(start, Picked(groups, missing), work.runtime.per_device_eval_batch_size)
    with rounded_as_in_training():
        for scored in track(scores, "reference log-probs", len(missing)):
            for key, response in zip(keys[missing[scored.index]], scored.responses, strict=True):
                known[key] = response.logprob_nats
                cache.put(key, response.logprob_nats)
    wait_for_others(f"{work.folder.name} has its reference log-probs", local_ranks())
    known |= cache.get_many([key for row in keys for key in row if key not in known])
    cache.close()
    return [[known[key] for key in row] for row in keys]
