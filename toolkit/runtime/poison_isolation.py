"""Finds the message that ends its process, and gives up that one alone, not the messages beside it.

A message that was delivered before is marked in the database, executed, and unmarked once it is settled. A mark that
exists already means that a process ended during the message: it is executed with a few others alike, and with two marks
alone. A message whose process ended again and again becomes a dead letter, and later copies of it become dead letters
unexecuted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from toolkit.errors import DatabaseUnavailableError
from toolkit.foreign_code.containment import contain
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.suspect_messages import fingerprint
from toolkit.runtime.delivery import Delivery, settle
from toolkit.runtime.marks import Marks
from toolkit.runtime.quarantine import Quarantine

#: With so many marks a message is given up: one among others, one among a few, and two alone, have ended with their
#: process. One death may be a coincidence, as each deployment may fall into the same slow call.
_GIVEN_UP = 5


class _Mark:
    """The mark of one message; copies of it share the mark, which is deleted once none of them is executed any more."""

    def __init__(self) -> None:
        self.written, self.deleted = asyncio.Event(), asyncio.Event()
        self.copies = 0
        self.is_ending = False


class PoisonIsolation:
    """Stands between a transport and the batcher of one service, for messages that were delivered before.

    Services that share a process share the quarantine of the messages that have a mark.
    """

    def __init__(
        self,
        service: str,
        database: Database,
        *,
        deliver: Callable[[WireMessage], Awaitable[None]],
        dead_letter: Callable[[DeadLetter], Awaitable[None]],
        quarantine: Quarantine,
    ) -> None:
        self._service = service
        self._marks = Marks(service, database)
        self._deliver = deliver
        self._dead_letter = dead_letter
        self._quarantine = quarantine
        #: The messages that this process marks.
        self._marked: dict[str, _Mark] = {}
        self._known: set[str] = set()

    async def prepare(self) -> None:
        """Read which messages have a mark, and forget what is old."""
        self._known = await self._marks.prepare()

    def knows(self, message: WireMessage) -> bool:
        """Whether a message had a mark when this process started, or was given up; costs nothing as long as none has.

        A new copy of it, which the relay of a killed process may leave, is as dangerous as one that is delivered again.
        """
        return bool(self._known) and fingerprint(message) in self._known

    def begin(self, delivery: Delivery) -> None:
        """Have a delivery executed whose message was delivered before, and settle it then; new copies are known now."""
        self._known.add(fingerprint(delivery.wire))
        delivery.isolation = asyncio.create_task(self._isolate_and_settle(delivery))

    async def isolate(self, message: WireMessage) -> None:
        """Have a message executed that was delivered before, and return once it is settled."""
        suspect = fingerprint(message)
        if mark := self._marked.get(suspect):
            await self._take_copy(message, suspect, mark)
        elif marks := await self._marks.count(suspect):
            async with self._quarantine.entered(marks=marks):
                await self._take_marked(message, suspect)
        else:
            await self._take_marked(message, suspect)

    async def stop(self) -> None:
        """Take back the marks of what is left to others: this process ends in good order."""
        if self._marked:
            await self._marks.take_back(set(self._marked))

    async def _isolate_and_settle(self, delivery: Delivery) -> None:
        try:
            await contain("a message that was delivered before", self.isolate(delivery.wire))
        except Exception as error:  # noqa: BLE001 -- it is delivered again
            delivery.fail(error)
        else:
            settle([delivery])

    async def _take_marked(self, message: WireMessage, suspect: str) -> None:
        if mark := self._marked.get(suspect):  # a copy came while this one waited
            await self._take_copy(message, suspect, mark)
            return
        mark = self._marked[suspect] = _Mark()
        marks = await self._marks.add(suspect)
        mark.written.set()
        if marks is not None and marks >= _GIVEN_UP:
            await self._give_up(message, suspect, marks)
        else:
            await self._settle(message, suspect, mark)

    async def _take_copy(self, message: WireMessage, suspect: str, mark: _Mark) -> None:
        """Have a copy executed under the mark of the first, only while that stands in the database."""
        if mark.written.is_set() and not mark.is_ending:
            await self._settle(message, suspect, mark)
        else:
            await (mark.deleted if mark.is_ending else mark.written).wait()
            await self._take_marked(message, suspect)

    async def _settle(self, message: WireMessage, suspect: str, mark: _Mark) -> None:
        """Have the message executed; where that is cut short, its mark stands for the next time."""
        mark.copies += 1
        has_survived = False
        try:
            await self._deliver(message)
            has_survived = True
        except DatabaseUnavailableError:
            raise  # it is delivered again
        except Exception:
            has_survived = True  # whatever it is, this process lives: the message has not ended it
            raise
        finally:
            mark.copies -= 1
            if has_survived and not mark.copies:
                await self._unmark(suspect, mark)

    async def _unmark(self, suspect: str, mark: _Mark) -> None:
        mark.is_ending = True
        self._known.discard(suspect)
        try:
            await self._marks.delete(suspect)
        finally:
            self._marked.pop(suspect, None)
            mark.deleted.set()

    async def _give_up(self, message: WireMessage, suspect: str, marks: int) -> None:
        self._known.add(suspect)
        self._marked.pop(suspect, None)
        await self._dead_letter(
            DeadLetter(
                id=new_id(),
                service=self._service,
                reason="ended its process",
                error=f"its process ended {marks} times while it was in hand, the last times alone; killed by the "
                "system for want of memory, for example: see the last log lines of the service and of the system",
                message=message,
                at=datetime.now(UTC),
            )
        )
