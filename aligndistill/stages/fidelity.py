"""fidelity.json: how closely a student follows the teacher on held-out prompts, apart from how good its answers are.

On the teacher's answers and on the student's own, at every token: does the student find the same token likeliest, and how far are
the two distributions apart? A student can be close to the teacher on the teacher's text and far from it on its own (exposure bias);
and better agreement need not mean better answers (Stanton et al. 2021, arXiv:2106.05945).
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aligndistill.evaluation.fidelity import Fidelity, TeacherFidelity, fidelity_of
from aligndistill.processes.ranks import from_all, is_main_process, our_share
from aligndistill.records import Answer
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import ANSWERS, FIDELITY, held_out_prompts
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.stage import StageResult, together

if TYPE_CHECKING:
    from torch import Tensor

    from aligndistill.models.groups import TokenGroup
    from aligndistill.models.load import LanguageModel
    from aligndistill.training.offline.distillation import LiveTeacher


@together
def make(
    context: StageContext, *, student: Path, teacher: Path, student_answers: Path, teacher_answers: Path, prompts: Path
) -> StageResult:
    """Compare the two models on both texts.

    Raises:
        ConfigError: they have different tokenizers.
    """
    from aligndistill.models.groups import TokenGroup
    from aligndistill.models.load import load_language_model, load_tokenizer, read_pointer
    from aligndistill.stages.distilled_student import live_teacher

    pointer = read_pointer(student)
    own = load_tokenizer(pointer)
    taught_by = live_teacher(pointer, own, teacher)
    learner = load_language_model(pointer, own)
    conversation = learner.conversation
    messages = {prompt.id: prompt.messages for prompt in held_out_prompts(prompts, None)}

    def figures(answers: Path) -> Fidelity:
        by_prompt: dict[str, list[list[int]]] = defaultdict(list)
        for answer in read_jsonl(answers / ANSWERS, Answer):
            if ids := conversation.response_ids(answer.text, answer.finish == "stop"):
                by_prompt[answer.prompt_id].append(ids)
        ours = our_share(sorted(by_prompt))
        groups = [TokenGroup(conversation.prompt_ids(messages[prompt]), by_prompt[prompt]) for prompt in ours]

        def measured() -> list[tuple[int, float, float, float]]:
            sums = followed(learner, taught_by, groups, context.runtime.per_device_eval_batch_size)
            return [(sum(map(len, group.responses)), *row) for group, row in zip(groups, sums, strict=True)]

        return fidelity_of(from_all(measured))

    result = TeacherFidelity(**figures(teacher_answers).model_dump(), own=figures(student_answers))
    if is_main_process():
        (context.folder / FIDELITY).write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return StageResult(counts={"prompts": result.agreement.n})


def followed(
    student: "LanguageModel", teacher: "LiveTeacher", groups: "Sequence[TokenGroup]", batch_size: int
) -> list[tuple[float, float, float]]:
    """Of each group, summed over its response tokens: where both find one token likeliest, KL(teacher || student), and
    KL(student || teacher), nats."""
    from aligndistill.models.scoring import summed_over_tokens
    from aligndistill.objectives.divergences import FIDELITY, fidelity

    def compare(student_CV: "Tensor", teacher_CV: "Tensor") -> "Tensor":
        return fidelity(*teacher.vocabulary.cut(student_CV.float(), teacher_CV))

    sums = summed_over_tokens(student, teacher.model, groups, batch_size, compare)
    same, forward, reverse = (FIDELITY.index(name) for name in ("agreement", "kl_forward_nats", "kl_reverse_nats"))
    return [
        (sum(row[same] for row in group), sum(row[forward] for row in group), sum(row[reverse] for row in group)) for group in sums
    ]
