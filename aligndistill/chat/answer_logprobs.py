"""How likely a model on a server finds answers that others wrote, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass

from aligndistill.chat.http.client import OpenSession, ServerClient
from aligndistill.chat.http.concurrency import run_concurrently
from aligndistill.chat.http.prompt_logprobs import MisalignedLogprobs
from aligndistill.chat.http.retries import RequestRejected, RetriesExhausted
from aligndistill.errors import JudgeError

NEEDS = "The server must give prompt_logprobs for token ids in /v1/completions, as vLLM does"
RESUME = "Run the same command again to resume from the last checkpoint."


@dataclass(frozen=True)
class AnswerLogprobs:
    """Asks a server that says how likely the tokens of a prompt are (vLLM's `prompt_logprobs`), with the answer as part of it.

    Prompts and answers are token ids, so there is one number for each token of the answer, or an error.
    """

    client: ServerClient

    def of(self, answers: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """The log-probability of every token of each answer, (prompt ids, answer ids), at temperature 1, nats. No prompt is empty.

        Raises:
            JudgeError: the server cannot be reached, rejects a request, or says something of other tokens than were sent.
            BudgetError: the budget is spent.
        """
        client = self.client

        async def ask(session: OpenSession, number: int) -> tuple[int, list[float]]:
            prompt, answer = answers[number]
            ids = [*prompt, *answer]
            try:
                scored = await client.score(session, ids)
                return number, scored.logprobs_of(ids)[len(prompt) - 1 :]
            except RetriesExhausted as failure:
                message = f"{client.name}: {failure}. Check that the server is running and that base_url is correct."
            except RequestRejected as refusal:
                message = (
                    f"{client.name} rejected {len(ids)} tokens: {refusal}. {NEEDS}, and a context (--max-model-len) of at least "
                    "max_prompt_tokens plus max_response_tokens plus 1; teacher.context_tokens drops prompts that are too long."
                )
            except MisalignedLogprobs as found:
                message = f"{client.name} answered with {found}. {NEEDS}, of the model whose tokenizer the config names."
            raise JudgeError(f"{message} {RESUME}")

        client.limit.restart()
        asked = [number for number, (_, ids) in enumerate(answers) if ids]
        found = dict(run_concurrently(client.session(), ask, asked, lambda: client.limit.current))
        return [found.get(number, []) for number in range(len(answers))]
