"""Opens the chat models and judges that a stage's arguments name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aligndistill.chat.function import FunctionChat
from aligndistill.chat.protocol import Answered, ChatModel, Request, SamplingParams
from aligndistill.config.judges import (
    ByAuthor,
    ChatJudge,
    Function,
    Judge,
    Likelihood,
    Listwise,
    Pairwise,
    Panel,
    RewardScore,
    Rubric,
)
from aligndistill.config.models import EndpointModel, FunctionModel
from aligndistill.config.paths import at_home
from aligndistill.config.plugins import load_plugin
from aligndistill.judges import author, function, listwise, pairwise, panel, protocol, rubric
from aligndistill.judges.questions import JudgeOptions
from aligndistill.judges.sanitising import control_tokens
from aligndistill.judges.templates import LISTWISE_FIELDS, PAIRWISE_FIELDS, RUBRIC_FIELDS, load_template
from aligndistill.records import Message
from aligndistill.stages.context import ModelSource, StageContext
from aligndistill.store.artifacts import content_fingerprint
from aligndistill.store.cache import Cache

if TYPE_CHECKING:  # modules that import torch are imported where they are used: a plan opens judges too
    from aligndistill.chat.answer_logprobs import AnswerLogprobs
    from aligndistill.judges.token_grades import GradeCache
    from aligndistill.models.load import LanguageModel, ModelPointer


@dataclass(frozen=True)
class OpenChat:
    """A chat model, with its language model if it runs here."""

    model: ChatModel
    local: "LanguageModel | None"

    def fits(self, messages: tuple[Message, ...], max_prompt_tokens: int, new_tokens: int) -> bool:
        """Whether a prompt is short enough. A server checks its own limit."""
        if self.local is None:
            return True
        length, positions = len(self.local.conversation.prompt_ids(messages)), self.local.max_positions
        return length <= max_prompt_tokens and (positions is None or length + new_tokens <= positions)


def open_chat(context: StageContext, model: ModelSource) -> OpenChat:
    """The chat model in a folder, on a server, or of a function."""
    if context.open_model is not None:
        return OpenChat(context.open_model(model), None)
    if isinstance(model, EndpointModel):
        from aligndistill.chat.endpoint import EndpointChat

        return OpenChat(context.open_endpoint(model) if context.open_endpoint else EndpointChat(model), None)
    if isinstance(model, FunctionModel):
        return OpenChat(FunctionChat(model), None)
    from aligndistill.chat.local import LocalChat
    from aligndistill.models.load import load_language_model, read_pointer

    language_model = load_language_model(read_pointer(model))
    runtime = context.runtime
    identity = f"model {context.identities[model]}"
    chat = LocalChat(language_model, identity, runtime.per_device_eval_batch_size, runtime.compile_decoding)
    return OpenChat(chat, language_model)


class UserTurnWriter(Protocol):
    """What writes user turns: the part of a chat model that answers, for requests without messages."""

    identity: str

    def answer(self, requests: Sequence[Request], sampling: SamplingParams) -> Iterator[Answered]:
        """See `ChatModel`."""
        ...


def open_user_turns(context: StageContext, model: ModelSource) -> UserTurnWriter:
    """What writes user turns by itself: the model in a folder, or one on a server that continues text."""
    if context.open_model is not None:
        return context.open_model(model)
    from aligndistill.chat.user_turns import LocalUserTurns, ServedUserTurns
    from aligndistill.models.load import ModelPointer, load_tokenizer

    if not isinstance(model, EndpointModel):
        opened = open_chat(context, model)
        assert opened.local is not None
        return LocalUserTurns(opened.local, opened.model.identity, context.runtime.per_device_eval_batch_size)
    from aligndistill.chat.endpoint import EndpointChat
    from aligndistill.models.conversation import Conversation

    chat = context.open_endpoint(model) if context.open_endpoint else EndpointChat(model)
    assert isinstance(chat, EndpointChat) and model.tokenizer is not None, "the config's checks see to that"
    pointer = ModelPointer(path=model.tokenizer, revision=None, layout="chat", trust_remote_code=False, thinking=model.thinking)
    return ServedUserTurns(chat.server, Conversation(load_tokenizer(pointer, alone=True), "chat"), model.identity)


def open_answer_logprobs(context: StageContext, model: EndpointModel) -> "AnswerLogprobs":
    """What a server says of given answers, within the run's limits and budget."""
    from aligndistill.chat.answer_logprobs import AnswerLogprobs
    from aligndistill.chat.endpoint import EndpointChat

    chat = context.open_endpoint(model) if context.open_endpoint else EndpointChat(model)
    assert isinstance(chat, EndpointChat)
    return AnswerLogprobs(chat.server)


def open_judge(
    context: StageContext,
    settings: Judge,
    models: Mapping[str, ModelSource],
    seed: int,
    member: str = "",
    read_before: Mapping[str, int] = {},
) -> protocol.Judge:
    """The configured judge.

    Args:
        models: the models that the judge names.
        member: the name of a panel member; it becomes the judge's name.
        read_before: how many verdicts are stored, by the judge's or the member's name; see `JudgeOptions`.
    """
    batch_size = context.runtime.per_device_eval_batch_size
    name = member or settings.kind
    if context.open_grader is not None and not isinstance(settings, ChatJudge | Panel):
        return context.open_grader(name)
    match settings:
        case Likelihood():
            from aligndistill.judges import likelihood
            from aligndistill.models.load import load_language_model, read_pointer

            model = models[_name(settings.model)]
            assert isinstance(model, Path), "the config's checks see to that"
            cache = cached_grades(context, f"likelihood {context.identities[model]}")
            return likelihood.LikelihoodJudge(name, load_language_model(read_pointer(model)), batch_size, cache)
        case Pairwise() | Listwise() | Rubric():
            opened = open_chat(context, models[_name(settings.model)])
            return _chat_judge(context, name, opened, settings, seed, read_before.get(name, 0))
        case ByAuthor():
            return author.AuthorJudge(name, settings.best)
        case Function():
            return function.FunctionJudge(member or settings.function, load_plugin(settings.function))
        case RewardScore():
            from aligndistill.judges import reward_model
            from aligndistill.models.load import ModelPointer
            from aligndistill.models.reward import load_reward_model

            pointer = ModelPointer(
                path=settings.model,
                revision=settings.revision,
                layout=settings.layout,
                trust_remote_code=settings.trust_remote_code,
            )
            lowered = settings.pessimism
            identity = f"reward {fingerprint_of(pointer)}{f' pessimism {lowered}' if lowered else ''}"
            loaded = load_reward_model(pointer, members=lowered > 0)
            return reward_model.RewardModelJudge(name, loaded, batch_size, cached_grades(context, identity), lowered)
        case Panel():
            members = [
                panel.Member(open_judge(context, one.judge, models, seed, member_name, read_before), one.weight, one.temperature)
                for member_name, one in settings.members.items()
            ]
            return panel.PanelJudge(name, members, settings.combine)


def _name(model: object) -> str:
    assert isinstance(model, str), "a resolved config names its models"
    return model


def cached_grades(context: StageContext, model: str) -> "GradeCache":
    """The cache of grades that local models gave, for all runs of this store."""
    from aligndistill.judges.token_grades import GradeCache

    return GradeCache(Cache(context.caches / "grades.sqlite"), model)


def fingerprint_of(pointer: "ModelPointer") -> str:
    """A fingerprint of the folder's content, or of the Hub name and revision."""
    folder = at_home(pointer.path)
    return content_fingerprint(folder) if folder.is_dir() else f"{pointer.path} {pointer.revision}"


def _chat_judge(
    context: StageContext, name: str, opened: OpenChat, settings: Pairwise | Listwise | Rubric, seed: int, read_before: int
) -> protocol.Judge:
    options = JudgeOptions(
        reasoning=settings.reasoning,
        samples=settings.samples,
        examples=settings.examples,
        max_answer_characters=settings.max_answer_characters,
        unreadable_limit=context.unreadable_limit,
        read_before=read_before,
        control_tokens=control_tokens(opened.local.conversation.tokenizer) if opened.local is not None else frozenset(),
    )
    cache = Cache(context.caches / "verdicts.sqlite")

    def judge_of(kind: Callable[..., protocol.Judge], fields: frozenset[str], **own: Any) -> protocol.Judge:
        template, new_tokens = load_template(settings.template, fields, settings.domain), settings.reply_tokens
        return kind(name, opened.model, template, max_new_tokens=new_tokens, cache=cache, seed=seed, options=options, **own)

    match settings:
        case Pairwise():
            own = {"both_orders": settings.both_orders, "comparisons": settings.comparisons}
            return judge_of(pairwise.PairwiseJudge, PAIRWISE_FIELDS, **own)
        case Listwise():
            return judge_of(listwise.ListwiseJudge, LISTWISE_FIELDS, both_orders=settings.both_orders)
        case Rubric():
            return judge_of(rubric.RubricJudge, RUBRIC_FIELDS, lowest=settings.lowest, highest=settings.highest)
