"""Keys of other tools are answered with ours."""

import pytest

from aligndistill.config import problems
from aligndistill.config.aliases import NO_SUCH_KEY, OUR_NAMES
from aligndistill.config.load import load_config
from aligndistill.config.section import Section
from aligndistill.errors import ConfigError
from tests.test_architecture import sections

BASE = {
    "name": "x",
    "prompts": "{source: {path: p.jsonl}}",
    "start": "{model: some/model}",
    "judge": "{kind: function, function: 'a:b'}",
}


def hint(tmp_path, **given: str) -> str:
    """What is said of the only wrong key, without the list of known ones."""
    path = tmp_path / "c.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in {**BASE, **given}.items()))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    (line,) = str(caught.value).splitlines()
    return line.split(": ", 1)[1].split(" (known keys")[0]


def student(text: str, objective: str = "{kind: dpo}") -> str:
    return f"{{a: {{objective: {objective}, {text}}}}}"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"start": "{model: m, lora: {rank: 8}}"}, "start.lora.rank: unknown key; it is called 'r' here"),
        ({"start": "{model: m, lora_r: 8}"}, "start.lora_r: unknown key; it is called 'r' here, and belongs under 'lora'"),
        ({"start": "{model_name_or_path: m}"}, "start.model_name_or_path: unknown key; it is called 'model' here"),
        ({"students": student("lr: 1e-6")}, "students.a.lr: unknown key; it is called 'learning_rate' here"),
        ({"students": student("epochs: 2")}, "students.a.epochs: unknown key; it is called 'num_train_epochs' here"),
        (
            {"students": student("per_device_train_batch_size: 2")},
            "students.a.per_device_train_batch_size: unknown key; write it as runtime.per_device_train_batch_size",
        ),
        (
            {"students": student("micro_train_batch_size: 2")},
            "students.a.micro_train_batch_size: unknown key; write it as runtime.per_device_train_batch_size",
        ),
        (
            {"students": student("gradient_accumulation_steps: 2")},
            "students.a.gradient_accumulation_steps: unknown key; it follows from batch_size, runtime.per_device_train_batch_size "
            "and the number of processes",
        ),
        (
            {"students": student("cutoff_len: 2")},
            "students.a.cutoff_len: unknown key; it is called 'max_prompt_tokens' and 'max_response_tokens' here",
        ),
        ({"students": student("lora: {r: 8}")}, "students.a.lora: unknown key; write it as start.lora or reward_model.lora"),
        (
            {"students": "{a: {objective: {kind: dpo, learning_rate: 1e-6}}}"},
            "students.a.objective.learning_rate: unknown key; write it as students.a.learning_rate",
        ),
        (
            {"students": "{a: {objective: {kind: dpo, lr: 1e-6}}}"},
            "students.a.objective.lr: unknown key; write it as students.a.learning_rate",
        ),
        (
            {"students": "{a: {objective: {kind: ppo, reward: judge, init_kl_coef: 0.1}}}"},
            "students.a.objective.init_kl_coef: unknown key; it is called 'kl_coefficient' here",
        ),
        (
            {"students": "{a: {objective: {kind: grpo, reward: judge, beta: 0.1, }}}"},
            "students.a.objective.beta: unknown key; it is called 'kl_coefficient' here",
        ),
        (
            {"students": "{a: {objective: {kind: grpo, reward: judge, num_generations: 8}}}"},
            "students.a.objective.num_generations: unknown key; it is called 'samples_per_prompt' here",
        ),
        (
            {"students": "{a: {objective: {kind: dpo, loss_type: ipo}}}"},
            "students.a.objective.loss_type: unknown key; it is called 'loss' here",
        ),
        (
            {"students": "{a: {objective: {kind: cpo, cpo_alpha: 1}}}"},
            "students.a.objective.cpo_alpha: unknown key; it is called 'sft_weight' here",
        ),
        (
            {"students": "{a: {objective: {kind: simpo, simpo_gamma: 1}}}"},
            "students.a.objective.simpo_gamma: unknown key; give gamma_beta_ratio, which is gamma divided by beta",
        ),
        ({"candidates": "{n: 4}"}, "candidates.n: unknown key; it is called 'per_prompt' here"),
        ({"candidates": "{max_tokens: 4}"}, "candidates.max_tokens: unknown key; it is called 'max_new_tokens' here"),
        ({"candidates": "{top_p: 0.9}"}, "candidates.top_p: unknown key; answers are sampled from the whole distribution, by "),
        ({"output_dir": "out"}, "output_dir: unknown key; it is called 'runs' here, and belongs under 'runtime'"),
        ({"dataset": "d"}, "dataset: unknown key; it is called 'source' here, and belongs under 'prompts'"),
        ({"runtime": "{num_gpus: 2}"}, "runtime.num_gpus: unknown key; it is called 'processes' here"),
        (
            {"teacher": "{kind: endpoint, base_url: 'http://h/v1', name: m, timeout: 3}"},
            "teacher.timeout: unknown key; it is called 'timeout_seconds' here",
        ),
        ({"runtime": "{save-steps: 3}"}, "runtime.save-steps: unknown key; did you mean 'save_steps'?"),
        ({"runtime": "{zzz: 3}"}, "runtime.zzz: unknown key"),
        ({"start": "{model: m, lora: {r:8}}"}, "start.lora.r:8: unknown key; write a space after the colon: 'r: ...'"),
        (
            {"start": "{model: m, lora: '{r: 8}'}"},
            "start.lora: expected a section (key: value pairs), found '{r: 8}' (remove the quotes",
        ),
        (
            {"start": "{model: m, lora: 'r:8'}"},
            "start.lora: expected a section (key: value pairs), found 'r:8' (put braces around it, a space after each colon, ",
        ),
    ],
)
def test_a_key_of_another_tool_is_answered_with_ours(tmp_path, given: dict[str, str], line: str) -> None:
    assert hint(tmp_path, **given).startswith(line)


def test_what_is_suggested_exists() -> None:
    every_section: list[type[Section]] = sorted(set(sections()), key=str)
    known = {key for section in every_section for key in problems.fields_of(section)}
    assert {name for names in OUR_NAMES.values() for name in names} <= known
    assert not NO_SUCH_KEY.keys() & {key for key in known if key not in OUR_NAMES}
    assert not NO_SUCH_KEY.keys() & OUR_NAMES.keys()
