"""A server of vLLM's shape on a real socket: it loads the weights that it is told to, and samples by this project's own sampler."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from aligndistill.config.objectives import RolloutServer
from aligndistill.models.load import LanguageModel, ModelPointer, from_pretrained
from aligndistill.models.sampling import SampleRequest, sample
from tests.chat.fault_server import Act, FaultServer, error, send

Instead = Callable[[str, dict[str, Any], int], Act | None]
"""What the server does with a request (path, body, number) in place of what it should; None where it does that."""


class PolicyServer(FaultServer):
    """Serves `start` until it is told to load something else.

    Args:
        dev_mode: whether VLLM_SERVER_DEV_MODE=1 was set when it was started.
        loads: whether it does what it answers 200 to, when it is told to load weights.

    Attributes:
        asked: path and body of every request so far.
        loaded: the folders that it was told to load, and for each the weights in it.
        reset: whether its prefix cache was reset after the last load.
        stale: completions that came before such a reset.
    """

    def __init__(self, start: Path, *, dev_mode: bool = True, loads: bool = True, instead: Instead | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.loaded: list[tuple[Path, dict[str, torch.Tensor]]] = []
        self.reset = True
        self.stale = 0
        self._dev_mode, self._loads, self._instead = dev_mode, loads, instead
        self._lock = threading.Lock()
        self._model = _model(start)
        super().__init__(lambda body, number: lambda handler: self._answer(handler, body, number))

    def rollouts(self, **settings: Any) -> RolloutServer:
        settings = {"timeout_seconds": 20, "max_retries": 2, **settings}
        return RolloutServer(base_url=self.base_url, name="policy", **settings)

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def bodies_of(self, path: str) -> list[dict[str, Any]]:
        return [body for seen, body in list(self.asked) if seen == path]

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
        with self._lock:
            self.asked.append((handler.path, body))
            act = self._instead(handler.path, body, number) if self._instead else None
            act = act or self._act(handler.path, body)
        act(handler)

    def _act(self, path: str, body: dict[str, Any]) -> Act:
        if path == "/v1/completions":
            return self._completion(body)
        if not self._dev_mode:
            return send(404, {"detail": "Not Found"})
        if path == "/reset_prefix_cache":
            self.reset = True
            return send(200, b"")
        if path == "/collective_rpc" and body.get("method") == "reload_weights":
            return self._load(**body["kwargs"])
        return send(404, {"detail": "Not Found"})

    def _load(self, weights_path: str, is_checkpoint_format: bool) -> Act:
        folder = Path(weights_path)
        if not is_checkpoint_format or not folder.is_dir():
            return error(500, f"FileNotFoundError: {folder}", "InternalServerError")
        model = _model(folder)
        self.loaded.append((folder, {name: value.clone() for name, value in model.state_dict().items()}))
        if self._loads:
            self._model = model
        self.reset = False
        return send(200, {"results": [None]})

    def _completion(self, body: dict[str, Any]) -> Act:
        if body["model"] != "policy":
            return error(404, f"The model `{body['model']}` does not exist.", "NotFoundError")
        assert (body["top_p"], body["top_k"], body["min_p"], body["repetition_penalty"]) == (1, -1, 0, 1)
        self.stale += not self.reset
        ends: Any = SimpleNamespace(eos_ids=frozenset(body["stop_token_ids"]), pad_id=0)
        request = SampleRequest(body["prompt"], "", tuple(range(body["n"])))
        settings = {"temperature": body["temperature"], "max_new_tokens": body["max_tokens"], "seed": body["seed"]}
        (drawn,) = sample(LanguageModel(self._model, ends, shares_prompt=False), [request], **settings)
        choices = [
            {
                "index": index,
                "text": "",
                "finish_reason": one.finish,
                "token_ids": one.ids if body["return_token_ids"] else None,
                "logprobs": {"token_logprobs": self._raw_logprobs(body["prompt"], one.ids)},
            }
            for index, one in enumerate(drawn)
        ]
        return send(200, {"object": "text_completion", "model": "policy", "choices": choices})

    @torch.no_grad()
    def _raw_logprobs(self, prompt: list[int], ids: list[int]) -> list[float]:
        """Those at temperature 1, by one pass over the whole row."""
        logprobs_TV = self._model(input_ids=torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        return [logprobs_TV[len(prompt) - 1 + t, token].item() for t, token in enumerate(ids)]


def _model(folder: Path) -> Any:
    return from_pretrained(AutoModelForCausalLM, ModelPointer(path=str(folder), layout="chat", dtype="float32")).eval()
