"""One service's open questions, and the answers to them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from toolkit.api.context import ApiContext
from toolkit.api.endpoints import Endpoint
from toolkit.api.query_parameters import LIMIT, limit_of
from toolkit.api.request_bodies import AnswerBody, body_of
from toolkit.api.responses import error_answer
from toolkit.api.schemas import GivenAnswer, OpenQuestions
from toolkit.declaration.events import is_saga_id
from toolkit.operations import answers
from toolkit.operations.questions import open_questions


def answer_endpoints(context: ApiContext) -> list[Endpoint]:
    """Return the endpoints."""
    people = Answers(context)
    return [
        Endpoint(path="/questions", serve=people.questions, answer=OpenQuestions, parameters=(LIMIT,)),
        Endpoint(
            path="/sagas/{id:path}/answers/{event}",
            serve=people.answer,
            answer=GivenAnswer,
            body=AnswerBody,
            may_miss=True,
            may_be_ambiguous=True,
            may_be_invalid=True,
        ),
    ]


class Answers:
    """Lists open questions, and answers them."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._taken = answers.answers_taken(context.service)

    async def questions(self, request: Request) -> Response:
        """List the steps that wait for an answer, with the events that have arrived; the longest waiting first."""
        async with self._context.database.reading() as connection:
            found = await open_questions(connection, self._context.contract, limit=limit_of(request))
        return self._context.answer(questions=found)

    async def answer(self, request: Request) -> Response:
        """Answer a step that waits; the response follows once the step has taken the answer, or after five seconds.

        404 where the service knows no such saga, or takes no such answer: then `answers` has those that it takes.
        409 where the step waits no more: `answer` has the answer that it took, who gave it and when.
        """
        body = await body_of(request, AnswerBody)
        saga_id, name = request.path_params["id"], request.path_params["event"]
        if not (steps := self._taken.get(name)):
            fault = answers.not_taken(self._context.name, name, self._taken)
            return error_answer(404, fault, service=self._context.name, answers=list(self._taken))
        if not is_saga_id(saga_id):
            return self._context.unknown_saga(saga_id)
        event = answers.build(steps, name, saga_id, body.fields)
        giving = answers.give(
            self._context.database,
            steps,
            saga_id,
            event,
            body.operator,
            queue=self._context.queue,
            now=self._context.now(),
            saga_type=body.type,
        )
        if (outcome := await self._context.uncut(giving)) is None:
            return self._context.unknown_saga(saga_id)
        if outcome.is_refused:
            return error_answer(409, str(outcome.why), service=self._context.name, answer=outcome)
        return self._context.answer(answer=outcome)
