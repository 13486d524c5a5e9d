import pytest

from aligndistill.reporting.headline import result_sentence
from aligndistill.reporting.report import Report, RewardModelMetrics, StudentMetrics
from tests.reporting.fake_run import full_report, mean, student

REST = (
    "On all prompts the judge prefers the answers of pro to the start's in 74% [69%, 79%] of comparisons. "
    "pro is 12.3 nats per response away from the start. "
    "All 2 students beat the start according to the judge (95% intervals above 50%)."
)


WORTH = (
    "Chosen on one half of the prompts, the best student has a truth of 0.66 [0.61, 0.71] on the other half "
    "(start: 0.42 [0.37, 0.47])."
)


def test_the_leading_student_and_what_choosing_it_is_worth():
    alone = "Leading student of 2: pro. All others are behind it (paired differences, 95%)."
    assert result_sentence(full_report()) == f"{alone} {WORTH} {REST}"


@pytest.mark.parametrize(
    ("differences", "group", "said"),
    [
        ({"dpo": mean(0.04)}, ("pro", "dpo"), "None of the others is distinguishable from it (paired differences, 95%)."),
        (
            {"dpo": mean(0.04), "rrhf": mean(0.1)},
            ("pro", "dpo"),
            "Not distinguishable from it (paired differences, 95%): dpo.",
        ),
    ],
)
def test_students_that_are_not_certainly_behind_are_named(differences, group, said):
    lead = full_report().leading.model_copy(update={"differences": differences, "group": group})
    assert said in result_sentence(full_report().model_copy(update={"leading": lead}))


def test_where_none_leads_the_choice_is_said_to_be_optimistic():
    assert result_sentence(full_report().model_copy(update={"leading": None})) == (
        "Best of 2 students, on the prompts that it was chosen on: pro, with a truth of 0.68 [0.63, 0.73] "
        f"(start: 0.42 [0.37, 0.47]). {REST}"
    )


def test_a_win_rate_that_may_be_chance_is_not_counted():
    report = full_report().model_copy(update={"students": {"a": student(0.5, 0.53), "b": student(0.6, 0.7)}})
    assert "1 of 2 students beat the start according to the judge" in result_sentence(report)


def test_one_student_without_truth():
    only = student(0.6, 0.7).model_copy(update={"truth": None, "kl_nats": None})
    sentence = result_sentence(Report(run="r", seed=0, students={"rrhf": only}))
    assert sentence == "rrhf. On all prompts the judge prefers the answers of rrhf to the start's in 70% [65%, 75%] of comparisons."


def test_nothing_measured():
    report = Report(run="r", seed=0, students={"dpo": StudentMetrics(objective="dpo", model="m")})
    assert result_sentence(report) == "Trained, not measured: dpo."
    assert result_sentence(Report(run="r", seed=0)) == "No student and no reward model was trained."


def test_reward_model_alone():
    metrics = RewardModelMetrics(accuracy=mean(0.71), longer_wins=mean(0.58), ece=mean(0.1))
    assert result_sentence(Report(run="r", seed=0, reward_model=metrics)) == (
        "The reward model agrees with 71% [66%, 76%] of held-out preferences; "
        "choosing the longer answer would agree with 58% [53%, 63%]."
    )
