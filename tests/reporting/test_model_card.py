from dataclasses import replace

from huggingface_hub import ModelCard

from aligndistill.evaluation.intervals import Mean
from aligndistill.evaluation.votes import VoteMetrics
from aligndistill.reporting.card_text import BEGIN, END, Terms
from aligndistill.reporting.model_card import Base, ModelFacts, Outcomes, StageFacts, model_card
from aligndistill.reporting.provenance import DataOrigin, ModelOrigin, Origins, Provenance, StageOrigin
from tests.reporting.fake_run import full_report, mean

STAGE = {
    "stage": "evaluation",
    "artifact": "evaluation-1",
    "models": ["teacher"],
    "sampling": {},
    "templates": {},
    "first": "2026-01-01T00:00:00+00:00",
    "last": "2026-01-01T00:01:00+00:00",
    "wall_seconds": 60.0,
    "requests": 1200,
    "tokens": 34567,
    "usd": 1.5,
}
ORIGINS = Origins(
    models=(
        ModelOrigin(name="start", model="org/base", revision="abc", licence="apache-2.0"),
        ModelOrigin(name="teacher", model="big-judge", server="host:8000", licence="gemma", outputs_may_train="yes"),
    ),
    data=(DataOrigin(key="prompts.source", data="org/prompts", revision="def", licence="mit"),),
)
FACTS = ModelFacts(
    run="quick",
    student="dpo",
    objective="dpo",
    settings={"learning_rate": 1e-6},
    terms=Terms("other", "Mine", "https://example.org/licence", ("en",)),
    base=Base("start", "org/base", "abc"),
    relation="adapter",
    parameters=1234567,
    dtype="bfloat16",
    layout="chat",
    lora=True,
    held_out=("org/prompts", "def"),
    config="name: quick\n",
    fingerprint="0123456789abcdef",
    stages=[StageFacts("rankings", {"train": 42, "pairs": 124}, {"tied": 3}, 12.0)],
    report=full_report(),
    provenance=Provenance(run="quick", origins=ORIGINS, stages=(StageOrigin.model_validate(STAGE),)),
    outcomes=Outcomes(wins=58, ties=19, losses=19, below=12, prompts=96),
    example=([{"role": "user", "content": "It's 'quoted'\nand two lines?"}], f"```\n{END}\n# Answer"),
    templates={"general": "Which is better, {first} or {second}?"},
    orders="Each comparison in both orders.",
    votes=VoteMetrics(votes=9, headline=9, agreement=Mean(mean=7 / 9, low=0.5, high=0.9, n=9), self_agreement=mean(0.9)),
)


def test_win_rates_are_by_the_judge_of_the_evaluation() -> None:
    report = full_report()
    assert report.judge is not None
    report = report.model_copy(update={"judge": report.judge.model_copy(update={"evaluation_kind": "rubric"})})
    card = model_card(replace(FACTS, report=report))
    (win,) = [one for one in ModelCard(card).data.eval_results or () if one.metric_type == "win_rate"]
    assert "judge: rubric (big-judge)" in str(win.metric_name)
    assert "Judge: pairwise (in the evaluation rubric). 3,112 verdicts, 14 of them unreadable." in card
    assert "Judge: rubric (big-judge)." in card


def test_the_hub_reads_its_front_matter() -> None:
    data = ModelCard(model_card(FACTS)).data
    values = data.to_dict()
    assert (data.license, data.license_name, data.license_link) == ("other", "Mine", "https://example.org/licence")
    assert (data.base_model, values["base_model_relation"], data.library_name) == ("org/base", "adapter", "peft")
    assert (data.datasets, data.pipeline_tag, data.language) == (["org/prompts"], "text-generation", ["en"])
    assert data.tags == ["aligndistill", "dpo", "rlaif", "distillation"]
    results = {one.metric_type: one for one in data.eval_results or ()}
    assert set(results) == set(data.metrics or ())
    win = results["win_rate"]
    assert (win.dataset_type, win.dataset_revision, win.metric_value) == ("org/prompts", "def", 0.66)
    assert "judge: pairwise (big-judge)" in str(win.metric_name)
    assert "95% [0.61, 0.71], n=96" in str(win.metric_name)


def test_its_text_says_what_was_measured_and_by_whom() -> None:
    text = ModelCard(model_card(FACTS)).text
    assert "Leading student of 2: pro" in text
    assert "A student of org/base, trained with `dpo` by aligndistill." in text
    assert "1,234,567 adapter parameters in bfloat16" in text
    assert "| rankings | 42 train, 124 pairs | 3 tied | 12 s |" in text
    assert "| teacher | big-judge | host:8000 |  | gemma | yes |" in text
    assert "| evaluation | teacher | 1,200 | 34,567 | 1.50 |" in text
    assert "14 of them unreadable. Each comparison in both orders." in text
    assert "Which is better, {first} or {second}?" in text
    assert "Against the start: 58 wins, 19 ties, 19 losses (n = 96)." in text
    assert "Worse than the start by the truth function on 12 of 96 prompts." in text
    assert "the judge chooses as they do in 7 of 9; voters repeat their choice in 90% [85%, 95%]" in text
    assert "12% of answers were cut" in text
    assert "arXiv:2305.18290" in text
    assert "arXiv:2106.09685" in text


def test_its_code_is_code_and_an_answer_stays_in_its_block() -> None:
    text = model_card(FACTS)
    assert text.count(BEGIN) == text.count(END) == 1
    assert "````text\n```\n" in text
    code = text.partition("```python\n")[2].partition("```")[0]
    compile(code, "card", "exec")
    assert "AutoPeftModelForCausalLM" in code
    assert "It's 'quoted'\\nand two lines?" in code
    plain = replace(FACTS, layout="transcript", relation="finetune", asked="\n\nHuman: Why?\n\nAssistant:")
    code = model_card(plain).partition("```python\n")[2].partition("```")[0]
    compile(code, "card", "exec")
    assert r"tokenizer('\n\nHuman: Why?\n\nAssistant:', " in code
    assert "apply_chat_template" not in code


def test_what_is_not_known_is_not_said() -> None:
    facts = replace(
        FACTS,
        terms=Terms(),
        base=Base("start", None, None, "Its base is a local folder ('x'), so no base model is linked."),
        report=None,
        provenance=None,
        outcomes=None,
        example=None,
        votes=None,
        templates={},
    )
    card = ModelCard(model_card(facts))
    values = card.data.to_dict()
    assert not {"license", "language", "base_model", "base_model_relation", "datasets", "metrics", "model-index"} & values.keys()
    assert "so no base model is linked" in card.text
    assert "Not measured: the run has no report yet." in card.text
    assert "Languages: not stated." in card.text
