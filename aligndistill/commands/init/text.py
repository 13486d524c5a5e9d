"""The text of a first config, with comments."""

import json
from collections.abc import Iterator

import yaml

from aligndistill.commands.init.choices import Choices
from aligndistill.config.paths import at_home
from aligndistill.models.folder import has_chat_template


def config_text(answers: Choices, name: str) -> str:
    """The YAML of a config for these answers."""
    return "\n".join(_lines(answers, name)) + "\n"


def _lines(answers: Choices, name: str) -> Iterator[str]:
    yield "# Written by `aligndistill init`. All keys: docs/running.md, docs/judges.md, docs/objectives.md."
    yield f"# The report will be runs/{name}/report.html."
    yield f"name: {_text(name)}"
    yield "seed: 0"
    yield ""
    if answers.prompts is not None:
        yield '# Rows of {"prompt": "..."} or {"messages": [...]}. `held_out` of them are for the evaluation, and never trained on.'
        yield "prompts:"
        yield f"  source: {{path: {_text(answers.prompts)}}}"
        yield f"  held_out: {answers.held_out}"
    else:
        yield "# Rows with prompt, chosen and rejected. `held_out` of them are for the evaluation, and never trained on."
        yield "rankings:"
        yield f"  source: {{path: {_text(str(answers.preferences))}}}"
        yield f"  held_out: {answers.held_out}"
    yield ""
    yield "# The student before alignment. Without `lora` all weights are trained, at a tenth of the learning rate."
    yield f"start: {{model: {_text(answers.student)}, layout: {_layout(answers.student)}, lora: {{r: 32, lora_alpha: 64}}}}"
    yield ""
    yield from _teacher(answers)
    yield "students:"
    for objective in answers.objectives:
        more = ", reward: reward_model" if objective == "ppo" else ""
        yield f"  {objective}: {{objective: {{kind: {objective}{more}}}, batch_size: 16}}"
    if "ppo" in answers.objectives:
        yield ""
        yield "reward_model: {batch_size: 16}     # learns the rankings; PPO's reward"
    yield ""
    if answers.judge != "none":
        yield "# Held-out prompts: the judge compares each student's answers with the start's and the teacher's."
        yield "evaluation: {judge: same, against_teacher: true}"
        yield ""
    yield "runtime:"
    yield "  per_device_train_batch_size: 2     # prompts at once; the result does not depend on it"
    yield "  per_device_eval_batch_size: 16"
    if answers.gpus:
        yield "  gradient_checkpointing: true       # less memory, more time"
    if answers.gpus > 1:
        yield "  deepspeed: zero2                   # zero3 shards the weights, too"


def _teacher(answers: Choices) -> Iterator[str]:
    if answers.teacher is None:
        return
    if answers.is_server:
        yield "# Any server with the OpenAI interface. If it wants a key: api_key_env: NAME_OF_THE_VARIABLE"
        yield "teacher:"
        yield "  kind: endpoint"
        yield f"  base_url: {_text(answers.teacher)}"
        yield f"  name: {_text(str(answers.teacher_name))}"
    else:
        yield f"teacher: {{model: {_text(answers.teacher)}, layout: {_layout(answers.teacher)}}}"
    yield ""
    if answers.prompts is not None and answers.judge != "none":
        yield "# The answers that are judged: four of the student's to each prompt."
        yield "candidates: {per_prompt: 4, from: [start], max_new_tokens: 512}"
        yield ""
    if answers.judge == "likelihood":
        yield "# The teacher's own probabilities are the verdict: nothing is asked."
        yield "judge: {kind: likelihood, model: teacher}"
        yield ""
    elif answers.judge != "none":
        what = "compares two answers, in both orders" if answers.judge == "pairwise" else "grades each answer by named criteria"
        yield f"# The teacher {what}. The audit says how far its verdicts can be trusted."
        yield f"judge: {{kind: {answers.judge}, model: teacher}}"
        yield ""


def _layout(model: str) -> str:
    """`chat`, but for a folder here whose tokenizer has no chat template, as those of base models."""
    folder = at_home(model)
    return "transcript" if folder.is_dir() and not has_chat_template(folder) else "chat"


def _text(value: str) -> str:
    """A YAML scalar that is read back as this text: in JSON's quotes where plain text could mean something else."""
    try:
        is_plain = yaml.safe_load(f"[{value}]") == [value]
    except yaml.YAMLError:
        is_plain = False
    return value if is_plain else json.dumps(value, ensure_ascii=False)
