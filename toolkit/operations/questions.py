"""The open questions of one service: the steps that wait for an answer of a person, or of a system outside."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.contract import Contract, HandlerContract
from toolkit.declaration.redaction import redacted_object
from toolkit.persistence.open_gates import OpenGate, open_gates
from toolkit.protocol.joins import Gate
from toolkit.protocol.question_rows import Question

#: So many waiting joins are read at once, at least: with its answer there, a join waits for another event.
_PAGE = 100


async def open_questions(connection: AsyncConnection, contract: Contract, *, limit: int) -> list[Question]:
    """Return up to `limit` steps that wait for an answer, the longest waiting first; bodies are redacted."""
    asking = {(each.saga, each.name): each for each in contract.handlers if answers_of(each, contract)}
    found: list[Question] = []
    size, after = max(limit, _PAGE), 0
    while len(found) < limit:
        gates = await open_gates(connection, asking, after=after, limit=size)
        questions = (_question(gate, asking[gate.key[0], gate.key[2]], contract) for gate in gates)
        found += [each for each in questions if each]
        if len(gates) < size:
            break
        after = gates[-1].row
    return found[:limit]


def answers_of(handler: HandlerContract, contract: Contract) -> list[str]:
    """Return the answers that a step takes."""
    return [name for name in handler.triggers if name in contract.events and contract.events[name].answer]


def _question(gate: OpenGate, step: HandlerContract, contract: Contract) -> Question | None:
    """Return the question of a gate; None while its step waits for another event than an answer."""
    saga_type, saga_id, _ = gate.key
    slots = Gate({slot.name: slot.events for slot in step.slots})
    arrived = [str(each.event_type) for each in gate.arrivals]
    answers = answers_of(step, contract)
    if not slots.lacks_only(answers, arrived):
        return None
    empty = [event for events in slots.empty(arrived).values() for event in events]
    asking = [each for each in gate.arrivals if each.event_type not in answers]
    return Question(
        service=contract.service,
        saga_type=saga_type,
        saga_id=saga_id,
        step=step.name,
        asked_at=asking[-1].at,
        asked_by=str(asking[-1].event_type),
        events={
            str(each.event_type): redacted_object(contract.events.get(str(each.event_type)), each.event_body)
            for each in gate.arrivals
        },
        answers=[event for event in answers if event in empty],
        waits_for=slots.waits_for(arrived),
        deadline=gate.arrivals[0].deadline,
    )
