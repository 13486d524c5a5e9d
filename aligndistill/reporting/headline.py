"""A summary of a run's result, generated from its metrics."""

from aligndistill.evaluation.intervals import Mean
from aligndistill.reporting.report import Report, best_student
from aligndistill.reporting.writing import number, with_interval


def result_sentence(report: Report) -> str:
    """The best student against the start; without students, the reward model; else a note that nothing was trained."""
    if report.students:
        return _of_students(report)
    if report.reward_model is None:
        return "No student and no reward model was trained."
    sentence = f"The reward model agrees with {_share(report.reward_model.accuracy)} of held-out preferences"
    if report.reward_model.longer_wins is None:
        return f"{sentence}."
    return f"{sentence}; choosing the longer answer would agree with {_share(report.reward_model.longer_wins)}."


def _of_students(report: Report) -> str:
    students = report.students
    best = best_student(students)
    if best is None:
        return f"Trained, not measured: {', '.join(students)}."
    student = students[best]
    sentences = [best if len(students) == 1 else f"Best of {len(students)} students: {best}"]
    if student.truth is not None:
        sentences[0] += f", with a truth of {with_interval(student.truth)}"
        sentences[0] += "" if report.start.truth is None else f" (start: {with_interval(report.start.truth)})"
    if student.win_rate is not None:
        sentences.append(f"The judge prefers its answers to the start's in {_share(student.win_rate)} of comparisons")
    if student.kl_nats is not None:
        sentences.append(f"It is {number(student.kl_nats.mean)} nats per response away from the start")
    rates = [other.win_rate for other in students.values() if other.win_rate is not None]
    if len(students) == len(rates) > 1:
        clearly = sum(rate.low > 0.5 for rate in rates)
        sentences.append(f"For {clearly} of {len(rates)} students the whole interval of that win rate is above one half")
    return ". ".join(sentences) + "."


def _share(figure: Mean) -> str:
    return f"{100 * figure.mean:.0f}% [{100 * figure.low:.0f}%, {100 * figure.high:.0f}%]"
