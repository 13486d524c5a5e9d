"""From a stage's inputs to models in memory: the chat models that write, and the judges."""

from collections.abc import Mapping
from dataclasses import dataclass

from aligndistill.chat.local import LocalChat
from aligndistill.chat.protocol import ChatModel
from aligndistill.config import (
    EndpointModel,
    FunctionJudge,
    Judge,
    LikelihoodJudge,
    PairwiseJudge,
    RewardModelJudge,
    RubricJudge,
)
from aligndistill.judges import function, likelihood, pairwise, protocol, reward_model, rubric
from aligndistill.judges.templates import PAIRWISE_FIELDS, RUBRIC_FIELDS, load_template
from aligndistill.models.load import LanguageModel, ModelPointer, load_language_model, read_pointer
from aligndistill.models.reward import load_reward_model
from aligndistill.plugins import load_plugin
from aligndistill.records import Message
from aligndistill.stages.stage import Work
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
        from aligndistill.chat.endpoint import EndpointChat  # only here: the client library takes seconds to import

        return OpenChat(EndpointChat(endpoint), None)
    language_model = load_language_model(read_pointer(work.inputs[name]))
    identity = f"{name} {work.identities[name]}"
    return OpenChat(LocalChat(language_model, identity, work.runtime.per_device_eval_batch_size), language_model)


def open_judge(work: Work, settings: Judge, servers: Servers) -> protocol.Judge:
    """The configured judge; its local models are inputs of the stage (see `judge_model_input`)."""
    batch_size = work.runtime.per_device_eval_batch_size
    match settings:
        case LikelihoodJudge():
            teacher = load_language_model(read_pointer(work.inputs[JUDGE_MODEL]))
            return likelihood.LikelihoodJudge("likelihood", teacher, batch_size)
        case PairwiseJudge():
            return pairwise.PairwiseJudge(
                "pairwise",
                open_chat(work, JUDGE_MODEL, servers.get(JUDGE_MODEL)).model,
                load_template(settings.template, PAIRWISE_FIELDS),
                both_orders=settings.both_orders,
                max_new_tokens=settings.max_new_tokens,
                cache=Cache(work.caches / "verdicts.sqlite"),
                seed=work.seed,
            )
        case RubricJudge():
            return rubric.RubricJudge(
                "rubric",
                open_chat(work, JUDGE_MODEL, servers.get(JUDGE_MODEL)).model,
                load_template(settings.template, RUBRIC_FIELDS),
                lowest=settings.lowest,
                highest=settings.highest,
                max_new_tokens=settings.max_new_tokens,
                cache=Cache(work.caches / "verdicts.sqlite"),
                seed=work.seed,
            )
        case FunctionJudge():
            return function.FunctionJudge(settings.function, load_plugin(settings.function))
        case RewardModelJudge():
            pointer = ModelPointer(
                path=settings.model,
                revision=settings.revision,
                layout=settings.layout,
                trust_remote_code=settings.trust_remote_code,
            )
            return reward_model.RewardModelJudge("reward_model", load_reward_model(pointer), batch_size)
