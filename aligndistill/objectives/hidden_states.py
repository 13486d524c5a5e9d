"""How far a student's hidden states are from a teacher's: an additional term of distillation.

    distance = mean over pairs of layers of    |P s - t|^2 / H  (mse)    or    1 - cos(P s, t)  (cosine)

s and t are the states of one token in a layer of the student and in one of the teacher, which has the width H; P is a learned
projection to it, or nothing where the widths are equal. Romero et al. 2015 (FitNets, arXiv:1412.6550), eq. 3, for the projection;
Jiao et al. 2020 (TinyBERT, arXiv:1909.10351), eq. 8, for pairs of layers. The mean over pairs is as in DistillKit's code.

Shapes: S response tokens, H the teacher's hidden size.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


def hidden_distance(students: Sequence[Tensor], teachers: Sequence[Tensor], kind: Literal["mse", "cosine"]) -> Tensor:
    """values_S: the mean over pairs of layers, in float32; 0 where the states are equal. No gradient flows to the teacher.

    Args:
        students: (S, H) of each pair, projected.
        teachers: (S, H) of each pair.
    """
    values = []
    for student_SH, teacher_SH in zip(students, teachers, strict=True):
        student_SH, teacher_SH = student_SH.float(), teacher_SH.detach().float()
        if kind == "mse":
            values.append((student_SH - teacher_SH).square().mean(-1))
        else:
            values.append(1 - cosine_similarity(student_SH, teacher_SH, dim=-1))
    return torch.stack(values).mean(0)
