"""fidelity.json: how closely a student follows the teacher on held-out prompts, apart from how good its answers are.

On the teacher's answers and on the student's own, at every token: does the student find the same token likeliest, and how far are
the two distributions apart? A student can be close to the teacher on the teacher's text and far from it on its own (exposure bias);
and better agreement need not mean better answers (Stanton et al. 2021, arXiv:2106.05945).
"""

from collections import defaultdict
from pathlib import Path

from aligndistill.evaluation.fidelity import Fidelity, TeacherFidelity, fidelity_of
from aligndistill.processes.ranks import from_all, is_main_process, our_share
from aligndistill.records import Answer
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import ANSWERS, FIDELITY, held_out_prompts
from aligndistill.store.jsonl import read_jsonl
from aligndistill.store.stage import StageResult, together


@together
def make(
    context: StageContext, *, student: Path, teacher: Path, student_answers: Path, teacher_answers: Path, prompts: Path
) -> StageResult:
    """Compare the two models on both texts.

    Raises:
        ConfigError: they have different tokenizers.
    """
    from aligndistill.models.groups import TokenGroup
    from aligndistill.models.load import load_language_model, read_pointer
    from aligndistill.models.scoring import agreement
    from aligndistill.models.vocabulary import shared_vocabulary, tokens_of

    pointers = read_pointer(student), read_pointer(teacher)
    learner, taught_by = (load_language_model(pointer) for pointer in pointers)
    known = [tokens_of(one.path, model.tokenizer) for one, model in zip(pointers, (learner, taught_by), strict=True)]
    vocabulary = shared_vocabulary(*known)
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
            found = agreement(learner, taught_by, groups, context.runtime.per_device_eval_batch_size, vocabulary.cut)
            return [
                (
                    sum(map(len, group.responses)),
                    sum(one.same_first for one in row),
                    sum(one.kl_forward_nats for one in row),
                    sum(one.kl_reverse_nats for one in row),
                )
                for group, row in zip(groups, found, strict=True)
            ]

        return fidelity_of(from_all(measured))

    result = TeacherFidelity(**figures(teacher_answers).model_dump(), own=figures(student_answers))
    if is_main_process():
        (context.folder / FIDELITY).write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return StageResult(counts={"prompts": result.agreement.n})
