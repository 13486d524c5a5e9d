"""A summary of a run's result, generated from its metrics."""

from collections.abc import Iterator

from aligndistill.evaluation.leading import Leading
from aligndistill.reporting.report import Report, leading_students
from aligndistill.reporting.writing import number, share, with_interval


def result_sentence(report: Report) -> str:
    """The leading student against the start, and those that are not distinguishable from it.

    Without students it is about the reward model; without that, a note that nothing was trained.
    """
    if report.students:
        return _of_students(report)
    if report.reward_model is None:
        return "No student and no reward model was trained."
    sentence = f"The reward model agrees with {share(report.reward_model.accuracy)} of held-out preferences"
    if report.reward_model.longer_wins is None:
        return f"{sentence}."
    return f"{sentence}; choosing the longer answer would agree with {share(report.reward_model.longer_wins)}."


def _of_students(report: Report) -> str:
    students, lead = report.students, report.leading
    best = next(iter(leading_students(report)), None)
    if best is None:
        return f"Trained, not measured: {', '.join(students)}."
    student = students[best]
    sentences = [best if len(students) == 1 else f"Best of {len(students)} students, on the prompts that it was chosen on: {best}"]
    if lead is not None:
        sentences = list(_leading(lead, report))
    elif student.truth is not None:
        sentences[0] += f", with a truth of {with_interval(student.truth)}"
        sentences[0] += "" if report.start.truth is None else f" (start: {with_interval(report.start.truth)})"
    if student.win_rate is not None:
        sentences.append(
            f"On all prompts the judge prefers the answers of {best} to the start's in {share(student.win_rate)} of comparisons"
        )
    if student.kl_nats is not None:
        sentences.append(f"{best} is {number(student.kl_nats.mean)} nats per response away from the start")
    rates = [other.win_rate for other in students.values() if other.win_rate is not None]
    if len(students) == len(rates) > 1:
        clearly = sum(rate.low > 0.5 for rate in rates)
        which = f"All {len(rates)} students beat" if clearly == len(rates) else f"{clearly} of {len(rates)} students beat"
        sentences.append(f"{which} the start according to the judge (95% intervals above 50%)")
    return ". ".join(sentences) + "."


MEASURES = {"truth": "truth", "win_rate_lc": "win rate at equal length", "win_rate": "win rate"}


def _leading(lead: Leading, report: Report) -> Iterator[str]:
    """The leader and its group, and what choosing the best of them is worth."""
    yield f"Leading student of {len(lead.differences) + 1}: {lead.leader}"
    others = lead.group[1:]
    if not others:
        yield "All others are behind it (paired differences, 95%)"
    elif len(others) == len(lead.differences):
        yield "None of the others is distinguishable from it (paired differences, 95%)"
    else:
        yield f"Not distinguishable from it (paired differences, 95%): {', '.join(others)}"
    start = report.start.truth if lead.measure == "truth" else None
    beside = f" (start: {with_interval(start)})" if start is not None else ""
    value = f"a {MEASURES[lead.measure]} of {with_interval(lead.value)}"
    yield f"Chosen on one half of the prompts, the best student has {value} on the other half{beside}"


def short_result(report: Report) -> str:
    """The first words of `result_sentence`: which students lead, or what was measured of the only one."""
    if report.students and report.leading is not None:
        return ". ".join([*_leading(report.leading, report)][:2]) + "."
    return result_sentence(report).partition(". ")[0].removesuffix(".") + "."
