"""From a stage's inputs to models in memory: the chat models that write, and the judges."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aligndistill.chat.endpoint import EndpointChat
from aligndistill.chat.local import LocalChat
from aligndistill.chat.protocol import ChatModel
from aligndistill.config.judges import (
    FunctionJudge,
    Judge,
    LikelihoodJudge,
    ListwiseJudge,
    PairwiseJudge,
    PanelJudge,
    RewardModelJudge,
    RubricJudge,
)
from aligndistill.config.models import EndpointModel
from aligndistill.config.plugins import load_plugin
from aligndistill.judges import function, likelihood, listwise, pairwise, panel, protocol, reward_model, rubric
from aligndistill.judges.questions import Manner, WorkedExample
from aligndistill.judges.sanitising import control_tokens
from aligndistill.judges.templates import LISTWISE_FIELDS, PAIRWISE_FIELDS, RUBRIC_FIELDS, load_template
from aligndistill.judges.token_grades import KeptGrades
from aligndistill.models.load import LanguageModel, ModelPointer, load_language_model, read_pointer
from aligndistill.models.reward import load_reward_model
from aligndistill.records import Message
from aligndistill.stages.context import Work
from aligndistill.store.artifacts import content_fingerprint
from aligndistill.store.cache import Cache

JUDGE_MODEL = "judge model"
"""The name of a stage's input that holds the judge's only local model."""


def judge_model_input(part: str) -> str:
    """The name of the input that holds the model that plays this part in a judge (see `judge_models`)."""
    return f"{JUDGE_MODEL} {part}" if part else JUDGE_MODEL


Servers = Mapping[str, EndpointModel]
"""A judge's servers, by the name of the input that a local model in their place would be."""


@dataclass(frozen=True)
class OpenChat:
    """A chat model, and its language model when it runs here."""

    model: ChatModel
    local: LanguageModel | None

    def fits(self, messages: tuple[Message, ...], max_prompt_tokens: int, new_tokens: int) -> bool:
        """Whether a prompt is short enough. A server's own limit is for the server to tell."""
        if self.local is None:
            return True
        length, positions = len(self.local.conversation.prompt_ids(messages)), self.local.max_positions
        return length <= max_prompt_tokens and (positions is None or length + new_tokens <= positions)


def open_chat(work: Work, name: str, endpoint: EndpointModel | None) -> OpenChat:
    """The chat model that one of the stage's inputs points to, or a server's."""
    if endpoint is not None and work.open_endpoint is not None:
        return OpenChat(work.open_endpoint(endpoint), None)
    if endpoint is not None:
        return OpenChat(EndpointChat(endpoint), None)
    language_model = load_language_model(read_pointer(work.inputs[name]))
    identity = f"{name} {work.identities[name]}"
    runtime = work.runtime
    chat = LocalChat(language_model, identity, runtime.per_device_eval_batch_size, runtime.compile_decoding)
    return OpenChat(chat, language_model)


def open_judge(work: Work, settings: Judge, servers: Servers, part: str = "") -> protocol.Judge:
    """The configured judge; its local models are inputs of the stage (see `judge_model_input`).

    Args:
        part: which member of a panel it is; that is its name then.
    """
    batch_size = work.runtime.per_device_eval_batch_size
    name = part or settings.kind
    match settings:
        case LikelihoodJudge():
            model = judge_model_input(part)
            teacher = load_language_model(read_pointer(work.inputs[model]))
            return likelihood.LikelihoodJudge(name, teacher, batch_size, kept_grades(work, f"likelihood {work.identities[model]}"))
        case PairwiseJudge() | ListwiseJudge() | RubricJudge():
            opened = open_chat(work, judge_model_input(part), servers.get(judge_model_input(part)))
            return _chat_judge(work, name, opened, settings)
        case FunctionJudge():
            return function.FunctionJudge(part or settings.function, load_plugin(settings.function))
        case RewardModelJudge():
            pointer = ModelPointer(
                path=settings.model,
                revision=settings.revision,
                layout=settings.layout,
                trust_remote_code=settings.trust_remote_code,
            )
            kept = kept_grades(work, f"reward {fingerprint_of(pointer)}")
            return reward_model.RewardModelJudge(name, load_reward_model(pointer), batch_size, kept)
        case PanelJudge():
            members = [
                panel.Member(open_judge(work, member.judge, servers, member_name), member.weight, member.temperature)
                for member_name, member in settings.members.items()
            ]
            return panel.Panel(name, members, settings.combine)


def kept_grades(work: Work, model: str) -> KeptGrades:
    """What models that read answers themselves have said before, in any run of this store."""
    return KeptGrades(Cache(work.caches / "grades.sqlite"), model)


def fingerprint_of(pointer: ModelPointer) -> str:
    """Of the folder's content, or the Hub's name and revision."""
    folder = Path(pointer.path).expanduser()
    return content_fingerprint(folder) if folder.is_dir() else f"{pointer.path} {pointer.revision}"


def _chat_judge(work: Work, name: str, opened: OpenChat, settings: PairwiseJudge | ListwiseJudge | RubricJudge) -> protocol.Judge:
    manner = Manner(
        reasoning=settings.reasoning,
        samples=settings.samples,
        examples=tuple(WorkedExample(one.prompt, one.answers, one.verdict, one.reason) for one in settings.examples),
        max_answer_characters=settings.max_answer_characters,
        control_tokens=control_tokens(opened.local.conversation.tokenizer) if opened.local is not None else frozenset(),
    )
    cache = Cache(work.caches / "verdicts.sqlite")
    match settings:
        case PairwiseJudge():
            return pairwise.PairwiseJudge(
                name,
                opened.model,
                load_template(settings.template, PAIRWISE_FIELDS),
                both_orders=settings.both_orders,
                max_new_tokens=settings.reply_tokens,
                cache=cache,
                seed=work.seed,
                manner=manner,
                comparisons=settings.comparisons,
            )
        case ListwiseJudge():
            return listwise.ListwiseJudge(
                name,
                opened.model,
                load_template(settings.template, LISTWISE_FIELDS),
                both_orders=settings.both_orders,
                max_new_tokens=settings.reply_tokens,
                cache=cache,
                seed=work.seed,
                manner=manner,
            )
        case RubricJudge():
            return rubric.RubricJudge(
                name,
                opened.model,
                load_template(settings.template, RUBRIC_FIELDS),
                lowest=settings.lowest,
                highest=settings.highest,
                max_new_tokens=settings.reply_tokens,
                cache=cache,
                seed=work.seed,
                manner=manner,
            )
