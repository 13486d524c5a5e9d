"""How closely a student follows its teacher, token by token."""

from collections.abc import Sequence

from aligndistill.evaluation.intervals import Mean, bootstrap_totals
from aligndistill.records import Record


class Fidelity(Record):
    """Means over the tokens of some text, with intervals over prompts.

    Attributes:
        agreement: the share of tokens at which student and teacher find the same token likeliest.
        kl_forward: KL(teacher || student) of the next-token distributions, nats per token.
        kl_reverse: KL(student || teacher), nats per token.
    """

    agreement: Mean
    kl_forward: Mean
    kl_reverse: Mean


class TeacherFidelity(Fidelity):
    """On the teacher's text, and (`own`) on the student's."""

    own: Fidelity


def fidelity_of(sums: Sequence[tuple[int, float, float, float]]) -> Fidelity:
    """The means of all tokens together.

    Args:
        sums: of each prompt, the number of its tokens, and over them the sums of agreement, forward and reverse KL.

    Raises:
        ValueError: no prompts.
    """
    agreement, forward, reverse = (
        bootstrap_totals([(row[0], row[column]) for row in sums], lambda totals: totals[:, 1] / totals[:, 0])
        for column in (1, 2, 3)
    )
    return Fidelity(agreement=agreement, kl_forward=forward, kl_reverse=reverse)
