"""A client for a vLLM server that samples rollouts while the policy is trained here.

Uses vLLM's documented interface. vLLM can load weights only if it was started with VLLM_SERVER_DEV_MODE=1; those paths are not
under /v1:

    POST /collective_rpc        {"method": "reload_weights", "kwargs": {"weights_path": FOLDER, "is_checkpoint_format": true}}
    POST /reset_prefix_cache    drops the cached keys and values of prompts, which belong to the old weights
    POST /v1/completions        token ids in, token ids out
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from aligndistill.chat.http.concurrency import run_concurrently
from aligndistill.chat.http.connection import Connection, Connections, decode
from aligndistill.chat.http.retries import AccessDenied, RequestRejected, TransientError, retrying
from aligndistill.chat.protocol import seed_of
from aligndistill.config.objectives import RolloutServer
from aligndistill.errors import TrainingError
from aligndistill.models.load import LanguageModel
from aligndistill.models.sampling import Sampled, SampleRequest
from aligndistill.records import content_hash

RELOAD, RESET, COMPLETIONS = "/collective_rpc", "/reset_prefix_cache", "/v1/completions"
GREETING_RETRIES = 1
AS_THE_POLICY_IS = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Sent with each request: vLLM takes missing parameters from the model's generation config."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Logprobs(BaseModel):
    token_logprobs: list[float]


class _Choice(BaseModel):
    index: int
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None


class _Completion(BaseModel):
    choices: list[_Choice]


class RolloutServerClient:
    """Loads a policy's weights into a server, and samples like `models.sampling.sample`; log-probs are those at temperature 1.

    Raises:
        ConfigError: the environment variable of the key is not set, or is not a valid key.
    """

    def __init__(self, config: RolloutServer) -> None:
        self._config = config
        self._connection = Connection(config.base_url, config.api_key_env, config.timeout_seconds)
        self._root = config.base_url.rstrip("/").removesuffix("/v1")
        self._who = f"the rollout server {self._root} ({config.name})"

    def require_ready(self) -> None:
        """Send a minimal request, before anything is loaded or trained.

        Raises:
            TrainingError: the server cannot be reached, has another model, or returns no token ids.
        """
        body = self._body([0], 1, temperature=1.0, max_new_tokens=1, seed=0, end_ids=())

        async def ask(session: Connections, body: Mapping[str, Any]) -> None:
            await self._posted(session, RESET, {}, _ignored, GREETING_RETRIES)
            completion = await self._posted(session, COMPLETIONS, body, _Completion.model_validate_json, GREETING_RETRIES)
            self._require_tokens(self._choices(completion, 1)[0])

        self._in_flight(ask, [body])

    def load(self, folder: Path) -> None:
        """Let the server load the safetensors in a folder, and reset its prefix cache.

        Raises:
            TrainingError: the server did not load them.
        """
        kwargs = {"weights_path": str(folder), "is_checkpoint_format": True}

        async def ask(session: Connections, body: Mapping[str, Any]) -> None:
            await self._posted(session, RELOAD, body, _ignored, self._config.max_retries, folder)
            await self._posted(session, RESET, {}, _ignored, self._config.max_retries)

        self._in_flight(ask, [{"method": "reload_weights", "kwargs": kwargs}])

    def sample(
        self,
        language_model: LanguageModel,
        requests: Sequence[SampleRequest],
        *,
        temperature: float,
        max_new_tokens: int,
        seed: int,
    ) -> list[list[Sampled]]:
        """Sample every request; `language_model` provides the end ids and the vocabulary size.

        Raises:
            TrainingError: the server does not answer, or the policy cannot have written its answer.
        """
        end_ids = language_model.conversation.eos_ids
        vocabulary = int(language_model.model.config.get_text_config().vocab_size)

        async def ask(session: Connections, number: int) -> tuple[int, list[Sampled]]:
            request = requests[number]
            body = self._body(
                request.prompt,
                len(request.samples),
                temperature=temperature,
                max_new_tokens=max_new_tokens,
                seed=seed_of(content_hash(str(seed), request.key, str(request.samples[0]))),
                end_ids=end_ids,
            )
            completion = await self._posted(session, COMPLETIONS, body, _Completion.model_validate_json, self._config.max_retries)
            choices = self._choices(completion, len(request.samples))
            return number, [self._sampled(choice, end_ids, vocabulary, max_new_tokens) for choice in choices]

        found = dict(self._in_flight(ask, range(len(requests))))
        return [found[number] for number in range(len(requests))]

    # -------------------------------------------------------------------------------------------------------- requests

    def _body(
        self, prompt: list[int], samples: int, *, temperature: float, max_new_tokens: int, seed: int, end_ids: Iterable[int]
    ) -> dict[str, Any]:
        return {
            "model": self._config.name,
            "prompt": prompt,
            "n": samples,
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "seed": seed,
            **AS_THE_POLICY_IS,
            "stop_token_ids": sorted(end_ids),
            "logprobs": 0,  # of the sampled token only
            "return_token_ids": True,
            "skip_special_tokens": False,
        }

    def _in_flight(self, ask: Callable[[Connections, Item], Any], items: Iterable[Item]) -> list[Any]:
        return list(run_concurrently(self._connection.session(), ask, items, self._config.concurrency))

    async def _posted(
        self,
        session: Connections,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[bytes], Result],
        max_retries: int,
        folder: Path | None = None,
    ) -> Result:
        """The answer as parsed by `read`, after retries. `read` raises `ValueError` for an invalid answer.

        Raises:
            TrainingError: there is no valid answer; the message says what to do.
        """

        async def one_try() -> Result:
            content = await self._connection.post(session, self._root + path, body)
            try:
                return read(content)
            except (ValueError, RecursionError):
                message = f"the reply is not a valid completion: {self._connection.quote(decode(content))}"
            raise TransientError(message)

        request = f"{self._who}: POST {path}"
        try:
            found: Result = await retrying(max_retries)(one_try)
            return found
        except TransientError as failure:
            tries = "1 try" if max_retries == 0 else f"{max_retries + 1} tries"
            advice = "Check that it is running, that base_url is right and timeout_seconds is long enough"
            if folder is not None:
                advice += f", and that it can read {folder} at this path (objective.server.weights sets the folder)"
            message = f"{request} failed after {tries}: {failure}. {advice}."
        except RequestRejected as refusal:
            advice = "Check that its context (--max-model-len) is at least max_prompt_tokens plus max_response_tokens."
            if path != COMPLETIONS:
                advice = "Check that this version of vLLM supports it."
            message = f"{request} was rejected: {refusal}. {advice}"
        except AccessDenied as denied:
            advice = denied.advice or self._connection.advice(denied.status) or "Check base_url and the model's name."
            if denied.status == 404 and path != COMPLETIONS:
                advice = "Start it with VLLM_SERVER_DEV_MODE=1 in its environment: vLLM loads new weights only in this mode."
            message = f"{request} was refused: {denied}. {advice}"
        raise TrainingError(f"{message} Run the same command again to resume from the last checkpoint.")

    # --------------------------------------------------------------------------------------------------------- parsing

    def _choices(self, completion: _Completion, samples: int) -> list[_Choice]:
        choices = sorted(completion.choices, key=lambda choice: choice.index)
        if [choice.index for choice in choices] != list(range(samples)):
            raise self._unusable(f"{len(choices)} choices where n is {samples}", "The server must support n, as vLLM does.")
        return choices

    def _require_tokens(self, choice: _Choice) -> tuple[list[int], list[float]]:
        if not choice.token_ids:
            raise self._unusable("no token_ids", "The server must support return_token_ids, as recent versions of vLLM do.")
        logprobs = choice.logprobs.token_logprobs if choice.logprobs is not None else []
        if len(logprobs) != len(choice.token_ids):
            raise self._unusable(
                f"{len(logprobs)} token_logprobs for {len(choice.token_ids)} tokens",
                "The server must support logprobs, as vLLM does.",
            )
        return choice.token_ids, logprobs

    def _sampled(self, choice: _Choice, end_ids: frozenset[int], vocabulary: int, max_new_tokens: int) -> Sampled:
        ids, logprobs = self._require_tokens(choice)
        strange = [token for token in ids if not 0 <= token < vocabulary]
        if strange:
            raise self._unusable(f"token id {strange[0]}; the policy has {vocabulary} tokens", "The server runs another model.")
        if any(token in end_ids for token in ids[:-1]):
            raise self._unusable("tokens after an end token", "The server must support stop_token_ids, as vLLM does.")
        ended = ids[-1] in end_ids  # not from finish_reason, which may be `length` for an end token in the last position
        if len(ids) > max_new_tokens or (not ended and len(ids) < max_new_tokens):
            raise self._unusable(
                f"{len(ids)} tokens of {max_new_tokens}, no end token ({sorted(end_ids)}), finish_reason {choice.finish_reason!r}",
                "The server's own stopping rules end its answers: start it with --generation-config vllm.",
            )
        return Sampled(ids, logprobs, "stop" if ended else "length")

    def _unusable(self, what: str, advice: str) -> TrainingError:
        return TrainingError(
            f"{self._who} answered with {what}. {advice} Run the same command again to resume from the last checkpoint."
        )


def _ignored(content: bytes) -> None:
    """Ignore the reply: only the status matters."""
