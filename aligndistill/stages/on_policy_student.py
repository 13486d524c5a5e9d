"""What the stages of students that learn from their own answers share: prompts, kept samples, the result."""

from pathlib import Path
from typing import Any

from aligndistill.config.models import Lora
from aligndistill.config.objectives import OnPolicyDistil, Ppo
from aligndistill.config.students import Student
from aligndistill.models.conversation import Conversation
from aligndistill.models.load import LanguageModel, load_language_model, read_pointer
from aligndistill.processes.ranks import is_main_process
from aligndistill.records import Prompt
from aligndistill.stages.context import StageContext, naming_row, require_records
from aligndistill.stages.files import PROMPTS, SAMPLES, RolloutSample
from aligndistill.store.jsonl import Appender, read_jsonl, write_jsonl
from aligndistill.store.stage import StageResult
from aligndistill.training.fit import Trained
from aligndistill.training.on_policy.health import all_warnings
from aligndistill.training.on_policy.rollouts import PolicyPrompt

SHOWN_PROMPTS = 4
_MAIN_SAMPLES = "samples-main.jsonl"


def policy_prompts(
    folder: Path, conversation: Conversation, max_positions: int | None, settings: Student
) -> tuple[list[PolicyPrompt], dict[str, int]]:
    """The training prompts that fit with an answer, and the number of dropped ones by reason.

    Raises:
        DataError: no prompt is left.
    """
    train = (prompt for prompt in read_jsonl(folder / PROMPTS, Prompt) if prompt.split == "train")
    prompts = []
    for prompt in train:
        with naming_row(prompt.source):
            prompts.append(PolicyPrompt(prompt.id, prompt.messages, conversation.prompt_ids(prompt.messages)))
    longest = settings.max_prompt_tokens
    if max_positions is not None:
        longest = min(longest, max_positions - settings.max_response_tokens)
    fitting = [prompt for prompt in prompts if len(prompt.ids) <= longest]
    too_long = len(prompts) - len(fitting)
    dropped = {"prompt too long": too_long} if too_long else {}
    require_records(len(fitting), "training prompts", dropped)
    return fitting, dropped


def frozen_reference(start: Path, reference: Path, lora: Lora | None, tokenizer: Any) -> LanguageModel | None:
    """The frozen reference; None if it is the start and the policy has adapters: disabled, they leave the start."""
    return None if lora is not None and reference == start else load_language_model(read_pointer(reference), tokenizer)


def kept_samples(context: StageContext) -> Appender:
    """A process's file for the samples that training keeps; those of the main process are shown."""
    return Appender(context.scratch / (_MAIN_SAMPLES if is_main_process() else "samples-other.jsonl"))


def finish(
    context: StageContext,
    policy: LanguageModel,
    objective: Ppo | OnPolicyDistil,
    trained: Trained,
    prompts: int,
    updates: int,
    dropped: dict[str, int],
) -> StageResult:
    """Write the samples of the run, and sum it up.

    Args:
        prompts, dropped: how many prompts were answered, and how many were not, by reason.
    """
    if not is_main_process():
        return StageResult()
    write_jsonl(context.folder / SAMPLES, _samples_of_run(context.scratch / _MAIN_SAMPLES, updates))
    return StageResult(
        counts={"prompts": prompts, "updates": updates, "steps": trained.steps},
        dropped=dropped,
        metrics={
            "train_seconds": trained.seconds,
            "shares_prompt": policy.shares_prompt,
            "warnings": [f"update {warning.update}: {warning.text}" for warning in all_warnings(trained.log, objective)],
        },
    )


def _samples_of_run(path: Path, updates: int) -> list[RolloutSample]:
    """The samples of the final run: without those of updates that were repeated after a resume, or undone by `kl_budget`."""
    rows = {(row.update, row.place): row for row in read_jsonl(path, RolloutSample)}
    return [rows[key] for key in sorted(rows) if key[0] <= updates]
