"""GRPO and RLOO with TRL's trainers: their loop and loss, with this package's rewards, checkpoints and log."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from datasets import Dataset

from aligndistill.chat.local import split_answer
from aligndistill.config.models import Lora
from aligndistill.config.objectives import Grpo, Rewarded
from aligndistill.errors import DataError
from aligndistill.models.conversation import Conversation
from aligndistill.models.load import ModelPointer, loading_keywords
from aligndistill.processes.deepspeed import connect_processes
from aligndistill.records import Message, as_dicts
from aligndistill.training.adapters import train_in_float32, with_adapters
from aligndistill.training.arguments import training_keywords, within_tokens
from aligndistill.training.checkpointing import CheckpointedTrainer
from aligndistill.training.fit import Trained, TrainingJob, fit
from aligndistill.training.on_policy.prompt_order import prompts_in_turn
from aligndistill.training.on_policy.rollouts import PolicyPrompt, SampledPrompt, ScoreSamples, length_to_stop, longest_row


def train_by_trl(
    model: Any,
    conversation: Conversation,
    objective: Rewarded,
    lora: Lora | None,
    prompts: Sequence[PolicyPrompt],
    score: ScoreSamples,
    job: TrainingJob,
    start: ModelPointer | None = None,
) -> Trained:
    """Train a policy by TRL's `GRPOTrainer` or `RLOOTrainer`; other settings are TRL's defaults.

    A step has `batch_size` prompts, and `num_train_epochs` are as many steps as updates in PPO: no prompt is left out, and the last
    step is filled up with prompts of another pass.

    Args:
        model: a causal language model loaded by transformers.
        start: what it was loaded from: TRL loads the reference from its path again, at the same revision.

    Raises:
        DataError: there are fewer prompts than a step has.
    """
    settings = job.settings
    if len(prompts) < settings.batch_size:
        text = f"{job.name}: there are only {len(prompts)} training prompts for a step of batch_size {settings.batch_size}"
        raise DataError(f"{text}: lower the student's batch_size to {len(prompts)} or less, or add prompts.")
    from trl import GRPOTrainer, RLOOTrainer  # only here: importing them takes seconds

    trainer_class = GRPOTrainer if isinstance(objective, Grpo) else RLOOTrainer
    watched = type(f"Watched{trainer_class.__name__}", (_Watched, trainer_class), {})
    arguments = _arguments(objective, prompts, job, start)
    order = prompts_in_turn(len(prompts), job.seed, 0, arguments.max_steps * settings.batch_size)
    rows = {"prompt": [as_dicts(one.messages) for one in prompts], "place": list(range(len(prompts)))}
    if job.runtime.deepspeed is not None:
        connect_processes()  # under ZeRO-3 TRL loads the reference sharded, in its constructor
    with _ending_at(model, conversation.eos_ids), _without_false_warning(trainer_class.__module__):
        trainer = watched(
            conversation,
            settings.batch_size / len(prompts),
            model=with_adapters(model, lora, "CAUSAL_LM", job.seed),
            reward_funcs=reward_function(conversation, prompts, score, objective.missing_eos_penalty, objective.samples_per_prompt),
            args=arguments,
            train_dataset=Dataset.from_dict(rows).select(order),
            processing_class=conversation.tokenizer,
        )
    if getattr(model, "is_quantized", False):
        train_in_float32(trainer.model)
    return fit(trainer, job)


def _arguments(objective: Rewarded, prompts: Sequence[PolicyPrompt], job: TrainingJob, start: ModelPointer | None) -> Any:
    """A `GRPOConfig` or an `RLOOConfig`."""
    from trl import GRPOConfig, RLOOConfig

    settings = job.settings
    runtime = within_tokens(job.runtime, longest_row(prompts, objective, job, shares_prompt=False))
    keywords = training_keywords(settings, runtime, job.folder, job.name, job.seed)
    keywords["per_device_train_batch_size"] *= objective.samples_per_prompt  # TRL counts answers
    if settings.max_steps <= 0:
        keywords["max_steps"] = settings.whole_updates(len(prompts))
    if start is not None:
        keywords["model_init_kwargs"] = loading_keywords(start)
    return (GRPOConfig if isinstance(objective, Grpo) else RLOOConfig)(
        **keywords,
        num_generations=objective.samples_per_prompt,
        temperature=objective.temperature,
        beta=objective.kl_coefficient,
        max_completion_length=settings.max_response_tokens,
        shuffle_dataset=False,  # TRL would leave out the rest of a pass that makes no whole step
        disable_dropout=True,
    )


@contextmanager
def _without_false_warning(logger: str) -> Iterator[None]:
    """Inside the block TRL does not say that it ignores `model_init_kwargs`: the reference is loaded with them."""

    def is_other(record: logging.LogRecord) -> bool:
        return "`model_init_kwargs` will be ignored" not in record.getMessage()

    logging.getLogger(logger).addFilter(is_other)
    try:
        yield
    finally:
        logging.getLogger(logger).removeFilter(is_other)


@contextmanager
def _ending_at(model: Any, eos_ids: frozenset[int]) -> Iterator[None]:
    """Inside the block these ids are the model's end ids, which TRL's trainers copy; they are not saved with the student."""
    own = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = sorted(eos_ids)
    try:
        yield
    finally:
        model.generation_config.eos_token_id = own


class _Watched(CheckpointedTrainer):
    """What is done otherwise than by TRL's trainers.

    Args:
        epochs_per_step: the part of all prompts that a step has, for the log: to TRL all steps are one epoch.
    """

    _metrics: dict[str, Any]  # TRL's: the values of each step since the last log entry

    def __init__(self, conversation: Conversation, epochs_per_step: float, **kwargs: Any) -> None:
        self._conversation = conversation
        self._epochs_per_step = epochs_per_step
        super().__init__(**kwargs)

    def _tokenize_prompts(self, prompts: list[list[dict[str, str]]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        # TRL's would read control tokens out of a message's text. The others are images and what processors say of them.
        return [self._conversation.prompt_ids([Message.model_validate(turn) for turn in turns]) for turns in prompts], None, {}

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        # GRPO's has the answers and their log-probs, which are None without vLLM; RLOO's the answers.
        found = super()._generate_single_turn(*args, **kwargs)  # type: ignore[misc]
        answers = found[0] if isinstance(found, tuple) else found
        cut = [ids[: length_to_stop(self._conversation, ids)] for ids in answers]
        return (cut, *found[1:]) if isinstance(found, tuple) else cut

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log under the number of epochs: how often every prompt was used."""
        self.state.epoch = self.state.global_step * self._epochs_per_step
        super().log(logs, start_time)

    def _unlogged(self) -> dict[str, Any]:
        return {**super()._unlogged(), "trl": self._metrics["train"]}

    def _resume_log(self, unlogged: dict[str, Any]) -> None:
        super()._resume_log(unlogged)
        self._metrics["train"].update(unlogged.get("trl", {}))  # older checkpoints have none


def reward_function(
    conversation: Conversation, prompts: Sequence[PolicyPrompt], score: ScoreSamples, missing_eos_penalty: float, samples: int
) -> Callable[..., list[float | None]]:
    """A reward source as a TRL reward function: takes the columns of a batch, returns one number per answer.

    An answer without a score is not penalised: TRL ignores None in its group's mean, deviation and leave-one-out baselines, and
    gives it the advantage 0, as it does for every answer of a group with fewer than two scores. Such an answer contributes only
    GRPO's KL term, and its tokens count in the mean of the loss.

    Args:
        samples: answers in a group: a prompt that is twice in a step, in two passes, has two groups.
    """

    def reward(completion_ids: list[list[int]], place: list[int], **columns: Any) -> list[float | None]:
        rows: dict[tuple[int, int], list[int]] = defaultdict(list)
        seen: Counter[int] = Counter()
        for row, number in enumerate(place):
            rows[number, seen[number] // samples].append(row)
            seen[number] += 1
        ended = [
            any(token in conversation.eos_ids for token in ids) or length_to_stop(conversation, ids) is not None
            for ids in completion_ids
        ]
        asked = [
            SampledPrompt(
                prompts[number].id,
                prompts[number].messages,
                tuple(split_answer(conversation, prompts[number].ids, completion_ids[row]).answer for row in of_prompt),
                tuple("stop" if ended[row] else "length" for row in of_prompt),
            )
            for (number, _), of_prompt in rows.items()
        ]
        rewards: list[float | None] = [None] * len(place)
        for of_prompt, scores in zip(rows.values(), score(asked), strict=True):
            for row, one in zip(of_prompt, scores, strict=True):
                if one is not None:
                    rewards[row] = one - (0.0 if ended[row] else missing_eos_penalty)
        return rewards

    return reward
