"""What `doctor` shows of the chat templates of local models, as their settings make them."""

from collections.abc import Iterator

from aligndistill.commands.output import Finding
from aligndistill.config.models import LocalModel
from aligndistill.config.resolve import resolved
from aligndistill.config.run import RunConfig
from aligndistill.errors import UserError


def template_findings(config: RunConfig) -> Iterator[Finding]:
    """Some lines for each local model with the layout `chat`."""
    models: dict[str, LocalModel] = dict(resolved(config).local_models)
    if config.reward_model is not None and config.reward_model.model is not None:
        models["reward_model"] = config.reward_model.model
    for name, model in models.items():
        if model.layout == "chat" and model.model is not None:
            learns = name in ("start", "reward_model") or getattr(model, "sft", None) is not None
            yield from _of_model(name, model.model, model, learns)


def _of_model(name: str, path: str, model: LocalModel, learns: bool) -> Iterator[Finding]:
    from aligndistill.chat.http.token_counts import is_local
    from aligndistill.models.chat_template import answer_place, refused_turns, writes_date
    from aligndistill.models.conversation import Conversation
    from aligndistill.models.load import load_tokenizer, pointer_to

    if not is_local(path):
        yield Finding(name, f"{path} is not on this machine yet: its chat template cannot be checked")
        return
    try:
        tokenizer = load_tokenizer(pointer_to(model), download=False)
        conversation = Conversation(tokenizer, "chat")
        place, refused = answer_place(tokenizer, tokenizer.get_chat_template()), refused_turns(tokenizer)
    except UserError as error:
        yield Finding(name, str(error), passed=False)
        return
    yield Finding(name, f"the chat template of {path}")
    yield Finding("  thinks", f"{'yes' if conversation.thinks else 'no'} (thinking: {model.thinking})")
    yield Finding("  prompts end with", repr(place.tail))
    if place.lead:
        yield Finding("  answers begin with", repr(place.lead))
    yield Finding("  answers end with", repr(tokenizer.convert_ids_to_tokens(conversation.end_of_turn)))
    yield Finding("  date", "fixed" if writes_date(tokenizer.get_chat_template()) else "none")
    if refused:
        yield Finding("  refuses", ", ".join(refused))
    if place.mismatch:
        yield Finding("  training", place.mismatch, passed=not learns)
