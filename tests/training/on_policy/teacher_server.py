"""A server of vLLM's shape on a real socket that says how likely a model finds the tokens of a prompt."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import torch

from tests.chat.fault_server import Act, FaultServer, completion, error, send

Scored = dict[str, Any]
"""A choice as it should be; what is done to it before it is sent changes it."""

Instead = Callable[[dict[str, Any], int], Act | None]
"""What the server does with a request (body, number) in place of what it should; None where it does that."""


class TeacherServer(FaultServer):
    """Answers completions with `prompt_logprobs` by plain forward passes, and every conversation with the same words.

    Args:
        spoil: changes a choice in place before it is sent.

    Attributes:
        asked: the prompt of every completion that was answered as it should be.
    """

    def __init__(self, model: Any, *, instead: Instead | None = None, spoil: Callable[[Scored], object] | None = None) -> None:
        self.asked: list[list[int]] = []
        self.instead, self._spoil = instead, spoil
        self._model = model
        self._lock = threading.Lock()
        super().__init__(lambda body, number: lambda handler: self._answer(handler, body, number))

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
        with self._lock:
            act = self.instead(body, number) if self.instead else None
            act = act or self._act(handler.path, body)
        act(handler)

    def _act(self, path: str, body: dict[str, Any]) -> Act:
        if path == "/v1/chat/completions":
            return completion("a house")
        if path != "/v1/completions" or body["model"] != "teacher":
            return error(404, f"{path} {body['model']} does not exist.", "NotFoundError")
        # vLLM samples one token at least, and else scales by the generation config's own temperature.
        assert (body["max_tokens"], body["temperature"], body["top_p"], body["top_k"]) == (1, 1, 1, -1)
        ids = body["prompt"]
        choice: Scored = {"index": 0, "text": "x", "finish_reason": "length", "token_ids": [5]}
        if body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = [None, *self._entries(ids)]
        choice["prompt_token_ids"] = [*ids] if body.get("return_token_ids") else None
        if self._spoil is not None:
            self._spoil(choice)
        self.asked.append(ids)
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1, "total_tokens": len(ids) + 1}
        return send(200, {"id": "c", "object": "text_completion", "model": "teacher", "choices": [choice], "usage": usage})

    @torch.no_grad()
    def _entries(self, ids: list[int]) -> list[dict[str, Any]]:
        logps_TV = self._model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        ranks_T = (logps_TV[:-1] > logps_TV[:-1].gather(-1, torch.tensor(ids[1:]).unsqueeze(-1))).sum(-1) + 1
        return [
            {str(id): {"logprob": logps_TV[t, id].item(), "rank": int(ranks_T[t]), "decoded_token": "?"}}
            for t, id in enumerate(ids[1:])
        ]
