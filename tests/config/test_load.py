import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligndistill.config.judges import Likelihood, Pairwise, RewardScore, Rubric
from aligndistill.config.load import dump_config, load_config
from aligndistill.config.models import EndpointModel, Teacher
from aligndistill.config.problems import Where
from aligndistill.config.run import RunConfig
from aligndistill.config.yaml import MAX_DEPTH, MAX_NODES, dump_yaml, read_yaml
from aligndistill.errors import ConfigError

ROUTE = {"prompts": "{source: {path: p.jsonl}}", "start": "{model: some/model}", "judge": "{kind: likelihood, model: start}"}
"""The sections without which a run of prompts is refused."""

BASE = "name: x\n" + "".join(f"{key}: {value}\n" for key, value in ROUTE.items())


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a config file into the working directory, and return its name as a user would give it."""
    monkeypatch.chdir(tmp_path)

    def written(text: str | bytes, name: str = "c.yaml") -> Path:
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return Path(name)

    return written


def refusal(*paths: Path, overrides: tuple[str, ...] = ()) -> list[str]:
    """The lines of the error."""
    with pytest.raises(ConfigError) as caught:
        load_config(paths, overrides)
    return str(caught.value).splitlines()


def parse(text: str) -> object:
    document = read_yaml(text, Where(0, "f", 1))
    assert document.problems == []
    return document.data


# ------------------------------------------------------------------------------------------------------- YAML's values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("5e-7", 5e-7),
        ("1E5", 1e5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-2.5e+3", -2500.0),
        ("-.inf", -math.inf),
        ("12", 12),
        ("-3", -3),
        ("007", 7),
        ("0o17", 15),
        ("0xff", 255),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("Null", None),
        ("", None),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2026-10-01", "2026-10-01"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("=", "="),
        ("'1e-6'", "1e-6"),
        ('"true"', "true"),
        ("[1, 2e3, no]", [1, 2000.0, "no"]),
        ("{a: {b: ~}}", {"a": {"b": None}}),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
        ("!!str 12", "12"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object):
    parsed = parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_nan_is_a_number():
    parsed = parse(".nan")
    assert isinstance(parsed, float)
    assert math.isnan(parsed)


def test_aliases_make_separate_copies():
    parsed = parse("{a: &x {k: 1}, b: *x}")
    assert isinstance(parsed, dict)
    assert parsed["a"] is not parsed["b"]


texts = st.text(st.characters(exclude_categories=["Cs"]))
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts.filter("<<".__ne__), inner, max_size=4),
    max_leaves=12,
)


@given(plain_values)
def test_what_is_dumped_reads_back(value: object):
    document = read_yaml(dump_yaml({"k": value}), Where(0, "f", 1))
    assert document.problems == []
    assert document.data == {"k": value}


@given(st.from_regex(r"[-+.0-9eExXoO_:]{1,8}|yes|no|on|off|null|true|~", fullmatch=True))
def test_text_that_looks_like_something_else_stays_text(text: str):
    assert parse(dump_yaml({"k": text})) == {"k": text}


# ------------------------------------------------------------------------------------------------- files that are wrong


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "c.yaml: the file is empty; expected 'key: value' lines"),
        (b"# only a comment\n", "c.yaml: the file is empty; expected 'key: value' lines"),
        (b"- a\n- b\n", "c.yaml: expected 'key: value' lines at the top level"),
        (b"just words\n", "c.yaml: expected 'key: value' lines at the top level"),
        (b"name: x\nstudents:\n\tdpo: {}\n", "c.yaml:3: a tab at the beginning of the line: indent with spaces"),
        (b"name: x\n\nseed: \xff\n", "c.yaml:3: not UTF-8 text; save the file as UTF-8"),
        (b"name: x\nseed: 'a\x07'\n", "c.yaml:2: the character #x07 is not allowed"),
        (b"name: x\nseed: [1, 2\nstart: 3\n", "c.yaml:3: not valid YAML: while parsing a flow sequence, "),
        (b"name: x\nseed: a: b\n", "c.yaml:2: not valid YAML: mapping values are not allowed here"),
        (b"name: x\nseed: *nowhere\n", "c.yaml:2: not valid YAML: found undefined alias 'nowhere'"),
        (b"name: x\n---\nname: y\n", "c.yaml:2: not valid YAML: expected a single document"),
        (b"name: x\nseed: &a [*a]\n", "c.yaml:2: not valid YAML: an alias refers to a value that contains it"),
    ],
)
def test_an_unreadable_file_is_refused_with_its_line(write, content: bytes, line: str):
    (only,) = refusal(write(content))
    assert only.startswith(line)


def test_a_byte_order_mark_is_no_part_of_the_first_key(write):
    assert load_config([write(b"\xef\xbb\xbf" + BASE.encode())]).name == "x"


def test_a_missing_file_names_its_neighbour(write):
    write(BASE, "quickstart.yaml")
    assert refusal(Path("quikstart.yaml")) == ["quikstart.yaml: there is no such file; did you mean 'quickstart.yaml'?"]
    assert refusal(Path("no/such.yaml")) == ["no/such.yaml: there is no such file; there is no folder 'no'"]


def test_a_folder_is_no_file(write):
    Path("configs").mkdir()
    assert refusal(Path("configs")) == ["configs: cannot be read: Is a directory"]


def test_all_unreadable_files_are_reported_at_once(write):
    assert [line.split(":")[0] for line in refusal(write("", "a.yaml"), write(BASE, "b.yaml"), Path("z.yaml"))] == [
        "a.yaml",
        "z.yaml",
    ]


def test_an_alias_bomb_is_refused_before_it_fills_the_memory(write):
    """Six levels of nine: half a million values from 250 bytes, which a machine without the limit survives."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 6)]
    (only,) = refusal(write("\n".join(lines)))
    assert f"more than {MAX_NODES} values" in only


def test_deep_nesting_is_refused(write):
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert read_yaml("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), Where(0, "f", 1)).data is None
    (only,) = refusal(write("name: x\nseed: " + "[" * 50_000))
    assert only == f"c.yaml:2: not valid YAML: more than {MAX_DEPTH} levels"


@pytest.mark.parametrize(
    "value",
    [
        '!!python/object/apply:os.system ["touch made-by-yaml"]',
        "!!python/name:os.system",
        '!!python/object/new:os.system ["touch made-by-yaml"]',
        "!mine {a: b}",
        "!!binary aGVsbG8=",
        "!!timestamp 2026-01-01",
        "!!set {a, b}",
    ],
)
def test_tags_are_refused_and_never_obeyed(write, value: str):
    lines = refusal(write(f"{BASE}runtime:\n  store: {value}\n"))
    assert lines[0].startswith("c.yaml:6: runtime.store: tags (such as !name) are not supported")
    assert not Path("made-by-yaml").exists()


def test_duplicate_keys_are_refused_with_both_lines(write):
    lines = refusal(write(f"{BASE}runtime:\n  save_steps: 1\n  store: s\n  save_steps: 2\nname: y\n"))
    assert lines == [
        "c.yaml:8: runtime.save_steps: duplicate key; first given at c.yaml:6",
        "c.yaml:9: name: duplicate key; first given at c.yaml:1",
    ]


def test_keys_that_are_not_text_and_merge_keys_are_refused(write):
    lines = refusal(write(BASE + "models:\n  1: {model: a}\n  two: &t {model: b}\n  three: {<<: *t}\n"))
    assert lines[0] == "c.yaml:6: models: a key must be text: put it in quotes"
    assert lines[1].startswith("c.yaml:8: models.three: merge keys (<<) are not supported")


# -------------------------------------------------------------------------------------------------- keys that are wrong

STUDENT_KEYS = (
    "learning_rate, batch_size, num_train_epochs, max_steps, warmup_ratio, lr_scheduler_type, weight_decay, max_grad_norm, "
    "max_prompt_tokens, max_response_tokens, objective, seed, start"
)
JUDGE_KINDS = "likelihood, pairwise, listwise, rubric, function, reward_model, author, panel"
HIDDEN = "hidden: {layers: %s}"
KINDS = "dpo, rrhf, pro, best_of_n, simpo, cpo, orpo, kto, sppo, ppo, grpo, rloo, distil, on_policy_distil"


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("seed: 1.5", "seed: expected a whole number, found 1.5"),
        ("seed: true", "seed: expected a whole number, found true"),
        ("seed: '1'", "seed: expected a whole number, found '1'"),
        ("seed: -1", "seed: expected a number not less than 0, found -1"),
        ("seed: 4294967296", "seed: expected a number less than 4.29497e+09, found 4294967296"),
        ("seed: null", "seed: expected a whole number, found nothing (null)"),
        ("seed: {a: 1}", "seed: expected a whole number, found a section"),
        ("sede: 1", "sede: unknown key; did you mean 'seed'? (known keys: name, seed, seeds, prompts, "),
        ("teacher: gpt", "teacher: expected a section (key: value pairs), found 'gpt'"),
        ("teacher: {kind: remote}", "teacher.kind: unknown kind 'remote' (known kinds: local, endpoint, function)"),
        ("teacher: {kind: endpoint, name: m}", "teacher.base_url: this key is required"),
        ("teacher: {kind: function, function: speak}", "teacher.function: expected package.module:name, found 'speak'"),
        ("teacher: {kind: endpoint, name: m, base_url: gpu7}", "teacher.base_url: expected the URL of a server, such as "),
        ("teacher: {layout: chat}", "teacher: give either 'model' (a Hub name or a folder) or 'from_scratch', not both"),
        ("teacher: {model: 3}", "teacher.model: expected text, found 3 (put it in quotes)"),
        ("candidates: {from: start}", "candidates.from: expected a list, found 'start' (put it in square brackets)"),
        ("candidates: {from: []}", "candidates.from: expected a list of at least 1, found a list of 0"),
        ("candidates: {authors: [start]}", "candidates.authors: unknown key (known keys: per_prompt, from, temperature, "),
        ("candidates: {temperature: 0}", "candidates.temperature: expected a number greater than 0, found 0"),
        ("candidates: {temperature: .nan}", "candidates.temperature: expected a finite number, found nan"),
        ("rankings: {pairs: alll}", "rankings.pairs: expected 'all' or 'best_worst', found 'alll'; did you mean 'all'?"),
        ("runtime: {gradient_checkpointing: yes}", "runtime.gradient_checkpointing: expected true or false, found 'yes'"),
        ("runtime: {store: 5}", "runtime.store: expected text, found 5 (put it in quotes)"),
        ("runtime: {report_to: tensorboard}", "runtime.report_to: expected a list, found 'tensorboard' (put it in square"),
        ("reward_model: {lora: {target_modules: 4}}", "reward_model.lora.target_modules: expected text or a list, found 4"),
        (
            "evaluation: {judge: sme}",
            f"evaluation.judge: expected 'same' or a section with a kind ({JUDGE_KINDS}), found '",
        ),
        ("evaluation: {judge: {kind: pairwize}}", "evaluation.judge.kind: unknown kind 'pairwize'; did you mean 'pairwise'? ("),
        (
            "evaluation: {judge: {kind: rubric, lowest: 5, highest: 5}}",
            "evaluation.judge: 'lowest' must be less",
        ),
        (
            "evaluation: {judge: {kind: pairwise, comparisons: elo}}",
            "evaluation.judge.comparisons: expected all, sort, swiss or random(n), found 'elo'",
        ),
        (
            "evaluation: {judge: {kind: pairwise, examples: [{prompt: a, answers: [b], verdict: A}]}}",
            "evaluation.judge: examples[0] has 1 'answers', but this kind of judge needs exactly 2",
        ),
        (
            "evaluation: {judge: {kind: panel, members: {a: {judge: {kind: likelihood}}, "
            "b: {judge: {kind: pairwise, both_orders: false}}}}}",
            "evaluation.judge.members.b: a panel member needs both_orders: true",
        ),
        (
            "evaluation: {judge: {kind: pairwise, model: 3}}",
            "evaluation.judge.model: expected a section",
        ),
        (
            "evaluation: {judge: {kind: pairwise, model: {kind: endpoint, base_url: 'http://h', name: n, nmae: n}}}",
            "evaluation.judge.model.nmae: unknown key; did you mean 'name'? (known keys: kind, base_url, name, api_key_env, ",
        ),
        ("evaluation: {truth: checker}", "evaluation.truth: expected package.module:name, found 'checker'"),
        ("evaluation: {truth: '.x:truth'}", "evaluation.truth: expected package.module:name, found '.x:truth'"),
        ("evaluation: {truth: '..:truth'}", "evaluation.truth: expected package.module:name, found '..:truth'"),
        ("evaluation: {truth: 'a..b:truth'}", "evaluation.truth: expected package.module:name, found 'a..b:truth'"),
        ("evaluation: {truth: 'a.:truth'}", "evaluation.truth: expected package.module:name, found 'a.:truth'"),
        (
            "evaluation: {judge: {kind: function, function: '.x:grade'}}",
            "evaluation.judge.function: expected package.module:name, found",
        ),
        ("evaluation: {truth: {a: b}}", "evaluation.truth: expected text, found a section"),
        ("students: []", "students: expected a section (key: value pairs), found a list of 0"),
        ("students: {a: null}", "students.a: expected a section (key: value pairs), found nothing (null)"),
        ("students: {a: {}}", "students.a.objective: this key is required"),
        ("students: {a: {objective: dpo}}", f"students.a.objective: expected a section with a kind ({KINDS}), found 'dpo'"),
        ("students: {a: {objective: {beta: 1}}}", f"students.a.objective.kind: this key is required (known kinds: {KINDS})"),
        (
            "students: {a: {objective: {kind: dpoo}}}",
            f"students.a.objective.kind: unknown kind 'dpoo'; did you mean 'dpo'? (known kinds: {KINDS})",
        ),
        (
            "students: {a: {objective: {kind: dpo}, beta: 0.2}}",
            f"students.a.beta: unknown key; it belongs under 'objective' (known keys: {STUDENT_KEYS})",
        ),
        (
            "students: {a: {objective: {kind: ppo, server: {base_url: 'http://h:8000', name: m}}}}",
            "students.a.objective.server.base_url: expected a URL that ends in /v1, such as http://localhost:8000/v1",
        ),
        (
            "students: {a: {objective: {kind: ppo, server: {base_url: 'http://me:pass@h/v1', name: m}}}}",
            "students.a.objective.server.base_url: a URL must not contain a user, password or query",
        ),
        (
            "students: {a: {objective: {kind: ppo, server: {base_url: 'http://h/v1'}}}}",
            "students.a.objective.server.name: this key is required",
        ),
        (
            "students: {a: {objective: {kind: grpo, server: {base_url: 'http://h/v1', name: m}}}}",
            "students.a.objective.server: unknown key",
        ),
        (
            "students: {a: {objective: {kind: kto, desirable_weight: high}}}",
            "students.a.objective.desirable_weight: expected 'auto' or a number, found 'high'",
        ),
        (
            "students: {a: {objective: {kind: kto, undesirable_weight: 0}}}",
            "students.a.objective.undesirable_weight: expected 'auto' or a number greater than 0, found 0",
        ),
        (
            "students: {a: {objective: {kind: kto, labels: soft, split: margin}}}",
            "students.a.objective: soft labels weight every response and split none: remove 'split', or set labels: hard",
        ),
        (
            "students: {a: {objective: {kind: kto, margin: 0.5}}}",
            "students.a.objective: 'margin' is for split: margin: set that, or remove 'margin'",
        ),
        (
            "students: {a: {objective: {kind: simpo, gamma_beta_ratio: -1}}}",
            "students.a.objective.gamma_beta_ratio: expected a number not less than 0, found -1",
        ),
        ("students: {a: {objective: {kind: orpo, odds_weight: 0}}}", "students.a.objective.odds_weight: expected a number greater"),
        ("students: {a: {objective: {kind: sppo, eta: 0}}}", "students.a.objective.eta: expected a number greater than 0, found 0"),
        ("students: {a: {objective: {kind: dpo, sft_weight: -1}}}", "students.a.objective.sft_weight: expected a number not less"),
        (
            "students: {a: {objective: {kind: on_policy_distil, form: sampled, divergence: jsd}}}",
            "students.a.objective: form 'sampled' is an estimate of 'reverse_kl': remove 'divergence', or set form: full",
        ),
        (
            "students: {a: {objective: {kind: on_policy_distil, advantage_clip: 5}}}",
            "students.a.objective: 'advantage_clip' has no effect with form 'full': remove it",
        ),
        (
            "students: {a: {objective: {kind: on_policy_distil, beta: 0.3}}}",
            "students.a.objective: 'beta' has no effect with divergence 'reverse_kl': remove it",
        ),
        (
            "students: {a: {objective: {kind: on_policy_distil, kl_coefficient: 0.1}}}",
            "students.a.objective.kl_coefficient: unknown key",
        ),
        (
            f"students: {{a: {{objective: {{kind: distil, {HIDDEN % '[]'}}}}}}}",
            "students.a.objective.hidden.layers: no states are compared: give pairs of a student's and a teacher's layer",
        ),
        (
            f"students: {{a: {{objective: {{kind: distil, {HIDDEN % '[[-1, 2]]'}}}}}}}",
            "students.a.objective.hidden.layers[0][0]: expected a number not less than 0, found -1",
        ),
        (
            f"students: {{a: {{objective: {{kind: distil, {HIDDEN % '[[1, 2], [1, 2]]'}}}}}}}",
            "students.a.objective.hidden.layers: a pair is listed twice: use 'weight' to make the term count more",
        ),
        (
            f"students: {{a: {{objective: {{kind: distil, {HIDDEN % '[[1, 2]], weight: 0'}}}}}}}",
            "students.a.objective.hidden.weight: expected a number greater than 0, found 0",
        ),
        (
            f"students: {{a: {{objective: {{kind: distil, {HIDDEN % '[[1, 2]], weight: much'}}}}}}}",
            "students.a.objective.hidden.weight: expected a number, found 'much'",
        ),
        (
            f"students: {{a: {{objective: {{kind: distil, {HIDDEN % '[[1, 2]], weight: .nan'}}}}}}}",
            "students.a.objective.hidden.weight: expected a finite number",
        ),
        (
            f"students: {{a: {{objective: {{kind: distil, top_k: 8, {HIDDEN % '[[1, 2]]'}}}}}}}",
            "students.a.objective: 'hidden' needs the teacher in memory, and 'top_k' stores its likeliest tokens alone: remove one",
        ),
        ("sft: {demonstrations: d.jsonl}", "sft.demonstrations: expected a section (key: value pairs), found 'd.jsonl'"),
        (
            "models: {m: {from_scratch: {hidden_size: 10, num_attention_heads: 4}, sft: {demonstrations: {path: d}}}}",
            "models.m.from_scratch: 'hidden_size' must be a multiple of 'num_attention_heads'",
        ),
        ("models: {m: {model: a, trust_remote_code: 1}}", "models.m.trust_remote_code: expected true or false, found 1"),
    ],
)
def test_a_wrong_key_is_reported_in_one_line(write, section: str, line: str):
    (only,) = refusal(write(f"{BASE}# a comment\n\n{section}\n"))
    assert only.startswith(f"c.yaml:7: {line}")
    jargon = r"function-|tagged-union|Input should|model_type|literal|pydantic|union|dict\b|tuple|\bint\b|\bbool\b|Extra inputs"
    assert not re.search(jargon, only)


def test_a_bad_name_of_the_run(write):
    (only,) = refusal(write(BASE.replace("name: x", "name: ../x")))
    assert only == (
        "c.yaml:1: name: expected a name made of letters, digits, '.', '-' and '_' that starts with a letter or a digit, "
        "found '../x'"
    )


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("models: {a: {model: m, quantize: 4}}", "models.a.quantize"),
    ],
)
def test_a_planned_key_is_not_available_yet(write, section: str, key: str):
    lines = BASE.splitlines()
    replaced = [line for line in lines if line.split(":")[0] != section.split(":")[0]]
    assert refusal(write("\n".join([*replaced, section, ""]))) == [
        f"c.yaml:{len(replaced) + 1}: {key}: is not available in this version"
    ]


def test_all_problems_are_reported_at_once_in_the_order_of_the_file(write):
    path = write(
        BASE
        + """
students:
  a:
    objective: {kind: dpo, beta: -1}
    learning_rate: fast
  a:
    objective: {kind: pro}
    bach_size: 3
    learning_rate: 0
runtime:
  store: !tag s
  save_step: 4
"""
    )
    assert [line.split(": ")[:2] for line in refusal(path)] == [
        ["c.yaml:10", "students.a"],
        ["c.yaml:12", "students.a.bach_size"],
        ["c.yaml:13", "students.a.learning_rate"],
        ["c.yaml:15", "runtime.store"],
        ["c.yaml:16", "runtime.save_step"],
    ]


def test_a_missing_key_is_reported_at_its_section(write):
    lines = refusal(write("seed: 1\nsft:\n  learning_rate: 1e-5\n"))
    assert lines == ["c.yaml: name: this key is required", "c.yaml:2: sft.demonstrations: this key is required"]


# -------------------------------------------------------------------------------------------------------------- secrets

CANARIES = ["sk-proj-4f9Ka02LmQ", "hf_JxAbCdEfGhIjKlMnOp", "hunter22", "q8Zt4LpX0vB7nM3kR1sD", "ghp_abcdEFGH1234"]


@pytest.mark.parametrize("secret", CANARIES)
@pytest.mark.parametrize(
    "section",
    [
        "judge: {{kind: pairwise, model: start, api_key: {}}}",
        "teacher: {{kind: endpoint, base_url: 'http://h/v1', name: m, api_key: {}}}",
        "teacher: {{kind: endpoint, base_url: 'http://user:{}@h/v1', name: m}}",
        "teacher: {{kind: endpoint, base_url: 'http://h/v1?key={}', name: m}}",
        "teacher: {{kind: endpoint, base_url: 'http://h/v1', name: m, api_key_env: '{} '}}",
        "hf_token: {}",
        "password: [{}]",
        "sede: {}",
        "prompts: {{source: {{path: p, columns: {{token: [{}]}}}}}}",
        "prompts: {{source: {{path: p, columns: {{password: {{a: {}}}}}}}}}",
    ],
)
def test_a_secret_is_never_echoed(write, section: str, secret: str):
    text = section.format(secret)
    lines = refusal(write(f"name: x\n{text}\n"))
    assert any(line.startswith("c.yaml:2: ") for line in lines)
    assert secret not in "\n".join(lines)

    key, _, value = text.partition(": ")
    lines = refusal(write("name: x\n"), overrides=(f"{key}={value}",))
    assert any(line.startswith(f"argument {key}=...: ") for line in lines)
    assert secret not in "\n".join(lines)


@pytest.mark.parametrize("secret", [canary for canary in CANARIES if canary != "hunter22"])
@pytest.mark.parametrize(
    "text",
    ["seed: {}", "{}: 1", "judge: {{kind: {}}}", "seed: *{}", "seed: [{}", "students: {{a: {{objective: {}}}}}", "name: '{} '"],
)
def test_what_looks_like_a_secret_is_hidden_wherever_it_stands(write, text: str, secret: str):
    written = text.format(secret)
    assert secret not in "\n".join(refusal(write(f"{written}\n")))
    key, _, value = written.partition(": ")
    assert secret not in "\n".join(refusal(write("name: x\n"), overrides=(f"{key}={value}", secret)))


def test_the_value_of_a_key_that_names_a_secret_is_not_shown(write):
    lines = refusal(write(f"{BASE}rankings: {{source: {{path: p, columns: {{password: 12345678, prompt: 87654321}}}}}}\n"))
    assert lines[0] == "c.yaml:5: rankings.source.columns.password: expected text, found a value (not shown: it may be a secret)"
    assert "found 87654321" in lines[1]


def test_a_key_in_the_config_is_answered_with_where_keys_come_from(write):
    lines = refusal(write("name: x\nteacher: {kind: endpoint, base_url: 'http://h', name: m, api_key: sk-12345678}\n"))
    assert (
        "c.yaml:2: teacher.api_key: unknown key; API keys are read from environment variables only: set api_key_env (known"
        in lines[0]
    )


def test_a_secret_in_place_of_a_variable_name_is_refused(write):
    lines = refusal(write(f"{BASE}teacher: {{kind: endpoint, base_url: 'http://h', name: m, api_key_env: hf_abcdefghij}}\n"))
    assert lines == [
        "c.yaml:5: teacher.api_key_env: expected the name of an environment variable, such as OPENAI_API_KEY, not the key itself"
    ]


# ---------------------------------------------------------------------------------------------------------- composition


def test_later_files_win_and_overrides_win_over_files(write):
    first = write(BASE + "seed: 1\nruntime: {save_steps: 1, logging_steps: 1, report_to: [a, b]}\n", "a.yaml")
    second = write("seed: 2\nruntime: {save_steps: 2, report_to: [c]}\n", "b.yaml")
    config = load_config([first, second], ["seed=3"])
    assert (config.seed, config.runtime.save_steps, config.runtime.logging_steps, config.runtime.report_to) == (3, 2, 1, ("c",))
    config = load_config([second, first])
    assert (config.seed, config.runtime.save_steps, config.runtime.report_to) == (1, 1, ("a", "b"))


def test_each_problem_is_reported_where_its_key_was_written_last(write):
    first = write(BASE + "seed: x\nruntime:\n  save_steps: x\n  logging_steps: x\n", "a.yaml")
    second = write("# overlay\nruntime:\n  save_steps: y\n", "b.yaml")
    assert refusal(first, second, overrides=("seed=z", "rankings.pairs=w")) == [
        "a.yaml:8: runtime.logging_steps: expected a whole number, found 'x'",
        "b.yaml:3: runtime.save_steps: expected a whole number, found 'y'",
        "argument seed=...: seed: expected a whole number, found 'z'",
        "argument rankings.pairs=...: rankings.pairs: expected 'all' or 'best_worst', found 'w'",
    ]


def test_a_section_whose_kind_changes_is_replaced_whole(write):
    base = write(
        """
name: x
prompts: {source: {path: p}}
start: {model: s}
teacher: {kind: endpoint, base_url: "http://h/v1", name: big, concurrency: 3}
judge: {kind: rubric, lowest: 2, highest: 5, max_new_tokens: 9, model: teacher}
students: {a: {objective: {kind: dpo, beta: 0.3}, learning_rate: 1e-3}}
"""
    )
    overlay = write("judge: {kind: pairwise, template: harmless}\n", "overlay.yaml")
    judge = load_config([base, overlay]).judge
    assert judge == Pairwise(kind="pairwise", template="harmless")

    same_kind = write("judge: {kind: rubric, highest: 7}\n", "same.yaml")
    judge = load_config([base, same_kind]).judge
    assert judge == Rubric(kind="rubric", lowest=2, highest=7, max_new_tokens=9)

    config = load_config([base], ["students.a.objective.kind=pro", "teacher={kind: local, model: small}"])
    assert config.students["a"].objective.model_dump() == {"kind": "pro", "sft_weight": 0.05}
    assert config.students["a"].learning_rate == 1e-3
    assert config.teacher == Teacher(model="small")


def test_a_model_without_a_kind_counts_as_local(write):
    base = write(BASE + "teacher: {model: a, layout: plain}\nmodels: {m: {model: b, layout: plain}}\n")
    endpoint = "{kind: endpoint, base_url: 'http://h', name: n}"
    config = load_config([base], [f"teacher={endpoint}", f"models.m={endpoint}"])
    assert config.teacher == config.models["m"] == EndpointModel(kind="endpoint", base_url="http://h", name="n")
    assert load_config([base], ["teacher.kind=local"]).teacher == Teacher(model="a", layout="plain")


def test_a_partial_judge_and_its_kind_may_come_from_different_files(write):
    partial = write("name: x\nprompts: {source: {path: p}}\nstart: {model: s}\njudge: {model: some/reward-model}\n", "a.yaml")
    kind = write("judge: {kind: reward_model}\n", "b.yaml")
    assert load_config([partial, kind]).judge == RewardScore(kind="reward_model", model="some/reward-model")


def test_a_missing_key_of_a_replaced_section_is_not_reported_at_the_old_one(write):
    base = write(BASE + "teacher: {kind: endpoint,\n  base_url: 'http://h', name: n}\n")
    overlay = write("\nmodels: {}\nteacher: {kind: local}\n", "overlay.yaml")
    (only,) = refusal(base, overlay)
    assert only.startswith("overlay.yaml:3: teacher: give either 'model'")


# ------------------------------------------------------------------------------------------------------------ overrides


def test_override_values_are_yaml(write):
    base = write(BASE + "reward_model: {}\nteacher: {model: t}\n")
    config = load_config(
        [base],
        [
            "reward_model.learning_rate=1e-6",
            "candidates.from=[start, teacher]",
            "evaluation={truth: 'a.b:c', judge: null}",
            "sft.demonstrations.path=data/a=b.jsonl",
            "start.model=no",
            "start.revision='12'",
            "runtime.gradient_checkpointing=true",
            "rankings.source=",
        ],
    )
    assert config.reward_model is not None
    assert config.reward_model.learning_rate == 1e-6
    assert config.candidates.authors == ("start", "teacher")
    assert (config.evaluation.truth, config.evaluation.judge) == ("a.b:c", None)
    assert config.sft is not None
    assert config.sft.demonstrations.path == "data/a=b.jsonl"
    assert config.start is not None
    assert (config.start.model, config.start.revision) == ("no", "12")
    assert config.runtime.gradient_checkpointing is True
    assert config.rankings.source is None
    assert load_config([base], ["reward_model=null"]).reward_model is None


def test_of_two_overrides_the_later_one_holds_and_their_order_does_not_matter_for_a_kind(write):
    base = write(BASE + "teacher: {model: t}\n")
    assert load_config([base], ["seed=1", "seed=2"]).seed == 2
    overrides = ["judge.template=harmless", "judge.kind=pairwise"]
    harmless = Pairwise(kind="pairwise", template="harmless")
    assert load_config([base], overrides).judge == load_config([base], overrides[::-1]).judge == harmless


def test_a_name_with_a_dot_is_written_in_braces(write):
    config = load_config([write(BASE)], ["students={dpo-0.1: {objective: {kind: dpo}, learning_rate: 1e-6}}"])
    assert config.students["dpo-0.1"].learning_rate == 1e-6


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "judge.modell=x",
            "argument judge.modell=...: judge.modell: unknown key; did you mean 'model'? (",
        ),
        ("sede=1", "argument sede=...: sede: unknown key; did you mean 'seed'? (known keys: "),
        ("seed.x=1", "argument seed.x=...: seed: expected a whole number, found a section"),
        ("candidates.from=[start, 3]", "argument candidates.from=...: candidates.from[1]: expected text, found 3 (put it in"),
        ("seed", "argument: 'seed' is not of the form section.key=value"),
        ("=3", "argument =...: '' is not of the form section.key=value"),
        ("judge..kind=x", "argument judge..kind=...: 'judge..kind' is not of the form section.key=value"),
        ("seed=[1", "argument seed=...: seed: not valid YAML: "),
        ("seed=@x", "argument seed=...: seed: not valid YAML: "),
        ("seed=!!python/name:os.system x", "argument seed=...: seed: tags (such as !name) are not supported"),
        (
            "judge={kind: likelihood, kind: rubric}",
            "argument judge=...: judge.kind: duplicate key",
        ),
    ],
)
def test_a_wrong_override_is_named(write, override: str, line: str):
    lines = refusal(write(BASE), overrides=(override,))
    assert any(told.startswith(line) for told in lines), lines


def test_an_unknown_key_reads_the_same_in_a_file_and_in_an_override(write):
    in_file = refusal(write(BASE + "runtime: {stor: x}\n"))[0].partition(": ")[2]
    in_override = refusal(write(BASE), overrides=("runtime.stor=x",))[0].partition(": ")[2]
    assert in_file == in_override


# --------------------------------------------------------------------------------------------------- between the sections


def checked(**sections: str | None) -> str:
    """A config in which every run's needs are met but for these sections (None leaves one out)."""
    merged = {"name": "x", **ROUTE, **sections}
    return "".join(f"{key}: {value}\n" for key, value in merged.items() if value is not None)


LOCAL = "{model: some/teacher}"
ENDPOINT = "{kind: endpoint, base_url: 'http://h/v1', name: n}"
FUNCTION = "{kind: function, function: 'a:b'}"
SCRATCH = "{from_scratch: {}}"
READY = "{source: {path: r.jsonl}}"
DPO = "{objective: {kind: dpo}}"
KTO_BY_MARGIN = "{kto: {objective: {kind: kto, split: margin}}}"
DISTIL = "{objective: {kind: distil, on: all}}"
ON_POLICY = "{objective: {kind: on_policy_distil}}"
SAMPLED = "{objective: {kind: on_policy_distil, form: sampled}}"
FROM_SCRATCH = {
    "teacher": "{from_scratch: {tokenizer_data: {path: t}, num_hidden_layers: 5}, sft: {demonstrations: {path: t}}}",
    "start": "{from_scratch: {tokenizer_data: {path: t}}}",
    "sft": "{demonstrations: {path: s}}",
}


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"prompts": None}, "c.yaml: there is no training data: give 'prompts'"),
        ({"rankings": READY}, "c.yaml:5: rankings.source: 'prompts' is set as well; a run trains either on"),
        ({"rankings": "{scores: probabilities}"}, "c.yaml:5: rankings.scores: this is about the scores of 'rankings.source'"),
        ({"judge": None}, "c.yaml: judge: the answers to 'prompts' need a judge"),
        (
            {"candidates": "{from: [teacher]}"},
            "c.yaml:5: candidates.from[0]: there is no model 'teacher' (models",
        ),
        (
            {"candidates": "{from: [start, techer]}", "teacher": LOCAL},
            "c.yaml:5: candidates.from[1]: there is no model 'techer'; did you mean 'teacher'? (models of this run: ",
        ),
        ({"candidates": "{from: [start, start]}"}, "c.yaml:5: candidates.from: a model is listed twice"),
        ({"candidates": "{per_prompt: 1}"}, "c.yaml:5: candidates.per_prompt: a single answer cannot be ranked"),
        ({"judge": "{kind: pairwise}"}, "c.yaml:4: judge.model: there is no model 'teacher' (models"),
        ({"judge": "{kind: rubric, model: big}"}, "c.yaml:4: judge.model: there is no model 'big' (models of this run: start)"),
        (
            {"evaluation": "{judge: {kind: pairwise, model: other}}"},
            "c.yaml:5: evaluation.judge.model: there is no model 'other' (models of this run: start)",
        ),
        (
            {"evaluation": "{against_teacher: true}"},
            "c.yaml:5: evaluation.against_teacher: there is no 'teacher'",
        ),
        (
            {"judge": "{kind: likelihood, model: teacher}", "teacher": ENDPOINT},
            "c.yaml:4: judge.model: a likelihood judge needs log-probabilities of whole answers",
        ),
        (
            {"judge": f"{{kind: likelihood, model: {ENDPOINT}}}"},
            "c.yaml:4: judge.model: a likelihood judge needs log-probabilities of whole answers",
        ),
        (
            {"evaluation": "{judge: {kind: likelihood, model: far}}", "models": f"{{far: {ENDPOINT}}}"},
            "c.yaml:5: evaluation.judge.model: a likelihood judge needs",
        ),
        (
            {"models": f"{{start: {LOCAL}}}"},
            "c.yaml:5: models.start: 'start' is a reserved name",
        ),
        ({"models": f"{{teacher: {LOCAL}}}"}, "c.yaml:5: models.teacher: 'teacher' is a reserved name (the section 'teacher')"),
        ({"students": f"{{a b: {DPO}}}"}, "c.yaml:5: students.a b: a student's name must be letters, digits"),
        ({"students": f"{{../a: {DPO}}}"}, "c.yaml:5: students.../a: a student's name must be letters, digits"),
        ({"models": f"{{reference: {LOCAL}}}"}, "c.yaml:5: models.reference: 'reference' is a reserved name"),
        ({"students": f"{{start: {DPO}}}"}, "c.yaml:5: students.start: 'start' is a reserved name"),
        ({"students": f"{{teacher: {DPO}}}"}, "c.yaml:5: students.teacher: 'teacher' is a reserved name"),
        ({"students": f"{{best_of_n: {DPO}}}"}, "c.yaml:5: students.best_of_n: 'best_of_n' is a reserved name"),
        (
            {"students": "{kto: {objective: {kind: kto}, batch_size: 3}}"},
            "c.yaml:5: students.kto.batch_size: kto's baseline is a mean over the prompts of a step, and noise with fewer than 4: ",
        ),
        (
            {"students": KTO_BY_MARGIN},
            "c.yaml:5: students.kto.objective.split: there is no margin around the mean score: set 'margin' beside this key, or ",
        ),
        ({"start": SCRATCH}, "c.yaml:3: start.from_scratch: a start from scratch needs 'sft'"),
        ({"teacher": SCRATCH}, "c.yaml:5: teacher.from_scratch: a model from scratch needs 'sft' in the same section"),
        ({"models": f"{{m: {SCRATCH}}}"}, "c.yaml:5: models.m.from_scratch: a model from scratch needs 'sft' in the same section"),
        (
            {"judge": f"{{kind: likelihood, model: {SCRATCH}}}"},
            "c.yaml:4: judge.model.from_scratch: a model from scratch needs 'sft' in the same section",
        ),
        (
            {"students": f"{{kd: {DISTIL}}}"},
            "c.yaml:5: students.kd.objective.kind: distillation reads a teacher's probabilities, and there is no 'teacher'",
        ),
        (
            {"teacher": ENDPOINT, "students": f"{{kd: {DISTIL}}}"},
            "c.yaml:6: students.kd.objective.kind: distillation reads a teacher's probabilities of every token, which",
        ),
        (
            {"students": f"{{opd: {ON_POLICY}}}"},
            "c.yaml:5: students.opd.objective.kind: distillation reads a teacher's probabilities, and there is no 'teacher'",
        ),
        (
            {"teacher": "{from_scratch: {}, sft: {demonstrations: {path: t}}}", "students": f"{{opd: {ON_POLICY}}}"},
            "c.yaml:6: students.opd.objective.kind: distillation needs one tokenizer for both models, and one from scratch",
        ),
        (
            {"teacher": LOCAL, "students": "{kd: {objective: {kind: distil}}}"},
            "c.yaml:6: students.kd.objective.on: no candidates are the teacher's: add 'teacher' to candidates.from",
        ),
        (
            {
                "teacher": "{from_scratch: {}, sft: {demonstrations: {path: t}}}",
                "start": SCRATCH,
                "sft": "{demonstrations: {path: s}}",
                "students": f"{{kd: {DISTIL}}}",
            },
            "c.yaml:7: students.kd.objective.kind: distillation needs one tokenizer for both models, and one from scratch",
        ),
        (
            {"teacher": "{from_scratch: {}, sft: {demonstrations: {path: t}}}", "students": f"{{kd: {DISTIL}}}"},
            "c.yaml:6: students.kd.objective.kind: distillation needs one tokenizer for both models, and one from scratch",
        ),
        (
            {"teacher": ENDPOINT, "students": f"{{opd: {ON_POLICY}}}"},
            "c.yaml:6: students.opd.objective.form: form 'full' compares whole distributions, and an endpoint gives the "
            "probabilities of given tokens alone: use form: sampled with a vLLM server, or a local teacher",
        ),
        (
            {"teacher": ENDPOINT, "students": f"{{opd: {SAMPLED}}}"},
            "c.yaml:5: teacher.tokenizer: on-policy distillation sends token ids to the teacher",
        ),
        (
            {
                "teacher": ENDPOINT.replace("}", ", tokenizer: t}"),
                "students": f"{{opd: {SAMPLED.replace('sampled', 'sampled, temperature: 0.7')}}}",
            },
            "c.yaml:6: students.opd.objective.temperature: a server's log-probabilities are those at temperature 1",
        ),
        (
            {**FROM_SCRATCH, "students": f"{{kd: {{objective: {{kind: distil, on: all, {HIDDEN % '[[3, 3], [4, 2]]'}}}}}}}"},
            "c.yaml:7: students.kd.objective.hidden.layers: the student has no layer 4: its layers are 0 (the embeddings) to 3 (",
        ),
        (
            {**FROM_SCRATCH, "students": f"{{kd: {{objective: {{kind: distil, on: all, {HIDDEN % '[[0, 6]]'}}}}}}}"},
            "c.yaml:7: students.kd.objective.hidden.layers: the teacher has no layer 6: its layers are 0 (the embeddings) to 5 (",
        ),
        (
            {"teacher": ENDPOINT, "evaluation": "{fidelity: true}"},
            "c.yaml:6: evaluation.fidelity: fidelity reads a teacher's probabilities of every token, which an endpoint",
        ),
        (
            {"teacher": FUNCTION, "evaluation": "{fidelity: true}"},
            "c.yaml:6: evaluation.fidelity: fidelity reads a teacher's probabilities of every token, which a function does not",
        ),
        (
            {"teacher": FUNCTION, "students": f"{{opd: {SAMPLED}}}"},
            "c.yaml:6: students.opd.objective.kind: distillation reads a teacher's probabilities of every token, which a function",
        ),
        (
            {"teacher": FUNCTION, "students": f"{{kd: {DISTIL}}}"},
            "c.yaml:6: students.kd.objective.kind: distillation reads a teacher's probabilities of every token, which a function",
        ),
        (
            {"teacher": FUNCTION, "judge": "{kind: likelihood, model: teacher}"},
            "c.yaml:4: judge.model: a likelihood judge needs log-probabilities of whole answers, which a function does not provide",
        ),
        (
            {"evaluation": "{fidelity: true}"},
            "c.yaml:5: evaluation.fidelity: fidelity reads a teacher's probabilities, and there is no",
        ),
        (
            {
                "start": "{model: s, lora: {r: 4}, quantize: {kind: nf4, export: adapter}}",
                "evaluation": "{quantized: int8}",
            },
            "c.yaml:5: evaluation.quantized: students of start.quantize with 'export: adapter' are adapters on a model in few",
        ),
        (
            {"reward_model": "{model: {from_scratch: {tokenizer_data: {path: t}}}}"},
            "c.yaml:5: reward_model.model.from_scratch.tokenizer_data: the tokenizer of a reward model from scratch is",
        ),
        ({"name": "store"}, "c.yaml:1: name: the folder runs/store is the store of finished stages"),
    ],
)
def test_sections_that_do_not_fit_together_are_refused(write, sections: dict[str, str | None], line: str):
    (only,) = refusal(write(checked(**sections)))
    assert only.startswith(line)


def test_a_start_is_no_function(write):
    assert "c.yaml:3: start.kind: expected 'local', found 'function'" in refusal(write(checked(start=FUNCTION)))


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"start": None, "judge": "{kind: function, function: 'a:b'}"}, "c.yaml: start: 'prompts' needs a start"),
        (
            {"prompts": None, "rankings": READY, "start": None, "judge": None, "students": f"{{a: {DPO}}}"},
            "c.yaml: start: students need a start",
        ),
        (
            {"prompts": None, "rankings": READY, "start": None, "judge": None, "reward_model": "{learning_rate: 1e-5}"},
            "c.yaml:3: reward_model.model: a reward model needs a backbone",
        ),
        (
            {"prompts": None, "rankings": READY, "start": None, "judge": None, "sft": "{demonstrations: {path: d}}"},
            "c.yaml:3: sft: `sft` needs a `start`",
        ),
    ],
)
def test_who_needs_a_start_says_so(write, sections: dict[str, str | None], line: str):
    (only,) = refusal(write(checked(**sections)))
    assert only.startswith(line)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"prompts": None, "rankings": READY, "judge": None},
        {"prompts": None, "rankings": READY, "judge": None, "evaluation": "{judge: same}"},
        {"prompts": None, "rankings": READY, "judge": None, "start": None, "reward_model": f"{{model: {LOCAL}}}"},
        {"candidates": "{per_prompt: 1, from: [start, teacher]}", "teacher": ENDPOINT},
        {"judge": "{kind: pairwise, model: m}", "models": f"{{m: {ENDPOINT}}}"},
        {"judge": "{kind: likelihood}", "teacher": "{from_scratch: {}, sft: {demonstrations: {path: d}}}"},
        {"reward_model": f"{{model: {SCRATCH}}}"},  # its tokenizer is trained on the rankings
        {"start": SCRATCH, "sft": "{demonstrations: {path: d}}"},
        {"students": "{best_of_n: {objective: {kind: best_of_n}}, dpo-0.1_b: {objective: {kind: dpo}}}"},
        {"name": "store", "runtime": "{store: elsewhere}"},
        {"students": "{kto: {objective: {kind: kto}, batch_size: 4}}"},
        {"students": KTO_BY_MARGIN, "rankings": "{tie_margin: 0.1}"},
        {"students": "{kto: {objective: {kind: kto, split: margin, margin: 0.5}}}"},
    ],
)
def test_what_fits_together_is_accepted(write, sections: dict[str, str | None]):
    assert load_config([write(checked(**sections))]).name in ("x", "store")


@pytest.mark.parametrize(
    ("objective", "sections", "line"),
    [
        (
            "kind: ppo",
            {},
            "c.yaml:5: students.a.objective.reward: this run has no 'reward_model': add that section, or use another",
        ),
        ("kind: grpo", {}, "c.yaml:5: students.a.objective.reward: this run has no 'reward_model'"),
        (
            "kind: ppo, reward: judge",
            {"judge": None},
            "c.yaml:4: students.a.objective.reward: this run has no 'judge': add that section, or give a judge here",
        ),
        (
            "kind: rloo, reward: [{source: judge}, {source: reward_model, weight: 2}]",
            {},
            "c.yaml:5: students.a.objective.reward[1].source: this run has no 'reward_model'",
        ),
        (
            "kind: ppo, reward: {kind: likelihood, model: nowhere}",
            {},
            "c.yaml:5: students.a.objective.reward.model: ",
        ),
        (
            "kind: ppo, samples_per_prompt: 1, reward: {kind: pairwise, model: start}",
            {},
            "c.yaml:5: students.a.objective.samples_per_prompt: a pairwise judge compares the answers to a prompt: set this to 2",
        ),
        (
            "kind: grpo, samples_per_prompt: 1, reward: judge",
            {},
            "c.yaml:5: students.a.objective.samples_per_prompt: grpo compares the answers to a prompt: set this to 2 or more",
        ),
        (
            "kind: ppo, reward: judge, evaluate_every: 5",
            {"evaluation": "{judge: null}"},
            "c.yaml:6: students.a.objective.evaluate_every: evaluations during training need evaluation.judge: add one",
        ),
        ("kind: ppo, reward: jugde", {}, "c.yaml:5: students.a.objective.reward: expected 'reward_model' or 'judge'"),
        ("kind: ppo, reward: []", {}, "c.yaml:5: students.a.objective.reward: expected a list of at least 1"),
        ("kind: ppo, reward: judge, clip_range: 1", {}, "c.yaml:5: students.a.objective.clip_range: expected a number less than 1"),
        ("kind: grpo, reward: judge, kl_budget: 4", {}, "c.yaml:5: students.a.objective.kl_budget: unknown key"),
    ],
)
def test_rewards_that_cannot_be_are_refused(write, objective: str, sections: dict[str, str | None], line: str):
    (only,) = refusal(write(checked(**sections, students=f"{{a: {{objective: {{{objective}}}}}}}")))
    assert only.startswith(line)


@pytest.mark.parametrize(
    ("objective", "sections"),
    [
        ("kind: ppo, reward: judge, samples_per_prompt: 1", {}),
        ("kind: ppo, reward: {kind: function, function: 'a:b'}", {"judge": None}),
        ("kind: ppo", {"reward_model": "{}"}),
        ("kind: rloo, reward: [{source: judge, weight: 0.5}, {source: {kind: function, function: 'a:b'}, weight: -1}]", {}),
    ],
)
def test_rewards_that_fit_are_accepted(write, objective: str, sections: dict[str, str | None]):
    assert "a" in load_config([write(checked(**sections, students=f"{{a: {{objective: {{{objective}}}}}}}"))]).students


def test_all_conflicts_are_reported_at_once(write):
    path = write(checked(judge="{kind: rubric, model: a}", candidates="{from: [b]}", students=f"{{start: {DPO}}}"))
    assert [line.split(": ")[1] for line in refusal(path)] == ["judge.model", "candidates.from[0]", "students.start"]


# ----------------------------------------------------------------------------------------------------------------- dump


def test_a_dump_uses_the_keys_that_users_write_and_reads_back_equal(write):
    config = load_config(
        [write(BASE.replace("name: x", "name: '1e6'"))],  # a name that YAML would take for a number
        [
            "candidates.from=[start]",
            "evaluation.judge=null",
            "start.lora={target_modules: [q_proj, v_proj]}",
            "students={a: {objective: {kind: pro}}, no: {objective: {kind: dpo}, learning_rate: 5e-7}}",
            "runtime.deepspeed=configs/x.json",
        ],
    )
    text = dump_config(config)
    assert "from:\n" in text
    assert "authors" not in text
    again = load_config([write(text, "dumped.yaml")])
    assert again == config
    assert (again.name, again.students["a"].learning_rate, again.judge) == ("1e6", 5e-5, Likelihood(model="start"))
    assert dump_config(again) == text


@settings(max_examples=30)
@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True),
    path=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    rate=st.floats(1e-12, 1, allow_subnormal=False),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_value_survives_the_dump(tmp_path_factory: pytest.TempPathFactory, name: str, path: str, rate: float, seed: int):
    config = RunConfig.model_validate(
        {
            "name": name,
            "seed": seed,
            "rankings": {"source": {"path": path}},
            "start": {"model": path},
            "students": {"s": {"objective": {"kind": "dpo"}, "learning_rate": rate}},
            "runtime": {"store": "elsewhere"},
        }
    )
    file = tmp_path_factory.mktemp("dump") / "c.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    assert load_config([file]) == config


@pytest.mark.parametrize("as_override", [False, True])
def test_an_old_key_is_read_with_a_warning_that_names_the_new_one(write, as_override: bool) -> None:
    path = write(BASE + ("" if as_override else "runtime: {silence_seconds: 7}\n"))
    overrides = ("runtime.silence_seconds=7",) if as_override else ()

    with pytest.warns(FutureWarning, match="runtime.silence_seconds is now called runtime.heartbeat_timeout_seconds"):
        config = load_config(path, overrides)

    assert config.runtime.heartbeat_timeout_seconds == 7


def test_an_error_in_an_old_key_names_its_line(write) -> None:
    with pytest.warns(FutureWarning):
        (line,) = refusal(write(BASE + "runtime:\n  silence_seconds: -1\n"))

    assert "c.yaml:6" in line
    assert "runtime.heartbeat_timeout_seconds" in line


def test_null_in_a_later_file_removes_a_student_or_a_model(write):
    file = write(BASE + "models: {other: {model: a/b}}\nstudents: {a: {objective: {kind: dpo}}, b: {objective: {kind: pro}}}\n")
    config = load_config([file], ["students.b=null", "models.other=null"])
    assert (set(config.students), config.models) == ({"a"}, {})
    assert refusal(file, overrides=("students.c=null",)) == [
        "argument students.c=...: students.c: expected a section (key: value pairs), found nothing (null)"
    ]
