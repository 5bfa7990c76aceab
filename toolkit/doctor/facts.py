"""The facts that the probes gather for the checks; None stands for an unknown fact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from toolkit.configuration.settings import Settings
from toolkit.declaration.contract import Contract
from toolkit.persistence.known_steps import UndeclaredStep
from toolkit.persistence.schema_version import SchemaVersion


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """A clock is ahead of this machine's by `least` to `most`."""

    whose: str
    least: timedelta
    most: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """A running service; with a `fault` nothing else is known.

    - `ready`: the parts of `/readyz`.
    - `dead_letter_answer`: the HTTP status for a request with our token.
    - `takes_demo_token`: whether the demo's public token is accepted; tried by `--probe` alone.
    - `is_open`: whether reading needs no token.
    """

    name: str
    url: str
    is_local: bool
    fault: str | None = None
    ready: Mapping[str, bool] = field(default_factory=dict)
    dead_letter_answer: int | None = None
    takes_demo_token: bool = False
    is_open: bool = False
    clock: ClockFacts | None = None


@dataclass(frozen=True, slots=True)
class Lack:
    """A table, column, index or unique key that is missing, and the statement that adds it."""

    kind: str
    table: str
    name: str
    statement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """A service's database; with a `fault` nothing else is known.

    - `settings`: PRAGMAs or parameters by name, as the toolkit's own connection has them.
    - `sources`: where PostgreSQL read each parameter.
    - `own_tables_known`: whether the service's own tables were compared, too.
    - `filesystem`: the type of an SQLite file's file system.
    - `connections`: the connections that each limit leaves to the service.
    - `open_logins`: the logins that a well-known password opens; tried by `--probe` alone.
    - `version`: the version of the toolkit's tables.
    - `former_steps`: steps in the log that the code does not declare.
    """

    service: str
    server: str
    is_sqlite: bool
    is_local: bool = True
    fault: str | None = None
    database: str = ""
    login: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    lacks: tuple[Lack, ...] = ()
    version: SchemaVersion | None = None
    own_tables_known: bool = False
    former_steps: tuple[UndeclaredStep, ...] | None = None
    filesystem: str | None = None
    free_bytes: int | None = None
    connections: Mapping[str, int] = field(default_factory=dict)
    open_logins: tuple[str, ...] = ()
    clock: ClockFacts | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """A queue's argument that differs from the declared one; None stands for an unset argument."""

    argument: str
    wanted: str | None
    found: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """A queue of a service; `differences` is None if the broker refused to compare, for the reason in `fault`."""

    service: str
    name: str
    exists: bool
    is_dead: bool = False
    consumers: int = 0
    differences: tuple[Difference, ...] | None = None
    fault: str | None = None


class ProbeOutcome(StrEnum):
    """The broker's answer to a message that no queue is bound to."""

    RETURNED = "returned"
    CONFIRMED = "confirmed"
    """A queue or an alternate exchange took it."""
    FORBIDDEN = "forbidden"
    TOO_LARGE = "too large"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class ProbeMessage:
    """A message that no queue is bound to, its outcome, and the broker's answer."""

    outcome: ProbeOutcome
    answer: str


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding of a queue to an exchange."""

    exchange: str
    queue: str
    key: str


@dataclass(frozen=True, slots=True)
class ManagedQueue:
    """A queue in the management API: its arguments, its effective policy, and the commands that clear that policy."""

    declared: Mapping[str, object]
    policy: Mapping[str, object]
    clear_commands: tuple[str, ...]
    consumers: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagementFacts:
    """The broker's management API at `url`; with a `fault` nothing else is known.

    - `alarms`: None if the API does not report them.
    - `kinds`: the types of the two shared exchanges.
    - `alternate`: what may take unroutable messages.
    """

    url: str
    fault: str | None = None
    bindings: tuple[Binding, ...] = ()
    queues: Mapping[str, ManagedQueue] = field(default_factory=dict)
    alarms: tuple[str, ...] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    alternate: str | None = None
    clock: ClockFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFacts:
    """The broker over AMQP; with a `fault` nothing else is known.

    - `exchange_faults`: how the two shared exchanges differ from their declaration.
    - `open_logins`, `probe`, `large_probe`: gathered by `--probe` alone; the large probe has SAGA_MAX_MESSAGE_BYTES.
    """

    address: str
    login: str
    vhost: str
    is_local: bool
    fault: str | None = None
    version: str = ""
    cluster: str = ""
    exchange_faults: Mapping[str, str] = field(default_factory=dict)
    queues: tuple[QueueFacts, ...] = ()
    open_logins: tuple[str, ...] = ()
    probe: ProbeMessage | None = None
    large_probe: ProbeMessage | None = None
    management: ManagementFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All facts; `broker` is None for embedded services.

    `contracts` are by service: the running service's, else that of the code here.
    """

    settings: Settings
    environment: Mapping[str, str]
    services: tuple[ServiceFacts, ...]
    contracts: Mapping[str, Contract]
    databases: tuple[DatabaseFacts, ...]
    broker: BrokerFacts | None

    @property
    def clocks(self) -> list[ClockFacts]:
        """The clocks that were read."""
        management = self.broker.management if self.broker else None
        clocks = [*(each.clock for each in self.services), *(each.clock for each in self.databases)]
        return [each for each in (*clocks, management.clock if management else None) if each]
