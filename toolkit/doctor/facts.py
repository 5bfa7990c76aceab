"""What was learnt by asking, before anybody judges it; None stands for what could not be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from toolkit.configuration.settings import Settings
from toolkit.declaration.contract import Contract
from toolkit.persistence.known_steps import Undeclared


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """By how much somebody's clock is ahead of this machine's: surely between these two."""

    whose: str
    least: timedelta
    most: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """What a running service tells of itself; `fault` says why it tells nothing.

    - `ready`: what `/readyz` says of each part.
    - `dead_letter_answer`: the status with which it answers whoever shows our token.
    - `takes_demo_token`: whether it lets in whoever shows the token that everybody knows.
    - `is_open`: whether it lets anybody read.
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
    """Something that a table should have; the statement would add it."""

    kind: str
    table: str
    name: str
    statement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """What a service's database tells; `fault` says why it tells nothing.

    - `settings`: PRAGMAs or parameters by name, as the toolkit's own connection has them.
    - `sources`: where PostgreSQL has each parameter from.
    - `own_tables_known`: whether the service's own tables could be compared, too.
    - `filesystem`: what an SQLite file lies on; None where the system doesn't tell.
    - `connections`: by what they are bounded, and how many that leaves to the service.
    - `open_logins`: those that got in by a password that anybody would guess.
    - `former_steps`: those that the log holds and the code does not declare; None where one of the two is not at hand.
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
    own_tables_known: bool = False
    former_steps: tuple[Undeclared, ...] | None = None
    filesystem: str | None = None
    free_bytes: int | None = None
    connections: Mapping[str, int] = field(default_factory=dict)
    open_logins: tuple[str, ...] = ()
    clock: ClockFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A queue's argument that is not as the service declares it; None stands for none."""

    argument: str
    wanted: str | None
    found: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """A queue as it is; `differences` is None where the broker would not tell, and `fault` says why."""

    service: str
    name: str
    is_there: bool
    is_dead: bool = False
    consumers: int = 0
    differences: tuple[Difference, ...] | None = None
    fault: str | None = None

    def differs_in(self, argument: str) -> Difference | None:
        """Return the difference in this argument."""
        return next((each for each in self.differences or () if each.argument == argument), None)


class Echo(StrEnum):
    """What became of a message that nobody listens to."""

    RETURNED = "returned"
    SWALLOWED = "swallowed"
    """The broker confirmed it, and gave it to somebody or to nobody."""
    FORBIDDEN = "forbidden"
    TOO_LARGE = "too large"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class Probe:
    """A message that was sent to nobody, and what the broker said."""

    echo: Echo
    told: str


@dataclass(frozen=True, slots=True)
class Binding:
    """What leads from an exchange to a queue."""

    exchange: str
    queue: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagementFacts:
    """What the broker's management API tells; `fault` says why it tells nothing, `url` where it was asked.

    - `declared`, `policies`: by queue, with which arguments it was declared, and what policies add to them.
    - `policy_names`: by queue, the policy and the operator policy that do, as `rabbitmqctl clear_…` takes them.
    - `consumers`: by queue, of all queues there are, how many take from it.
    - `alarms`: None where the broker does not tell.
    - `kinds`: by exchange, of those that all services share, its type.
    - `taker`: what may take the messages that nobody is bound to.
    """

    url: str
    fault: str | None = None
    bindings: tuple[Binding, ...] = ()
    declared: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    policies: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    policy_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    consumers: Mapping[str, int] = field(default_factory=dict)
    alarms: tuple[str, ...] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    taker: str | None = None
    clock: ClockFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFacts:
    """What the broker tells over AMQP; `fault` says why it tells nothing.

    - `exchange_fault`: what is wrong with the exchange; None where it is as declared. The same of that of dead letters.
    - `probe`, `big_probe`: a message to nobody, and one as big as SAGA_MAX_MESSAGE_BYTES; None where none was sent.
    """

    address: str
    login: str
    vhost: str
    is_local: bool
    fault: str | None = None
    version: str = ""
    cluster: str = ""
    exchange_fault: str | None = None
    dead_exchange_fault: str | None = None
    queues: tuple[QueueFacts, ...] = ()
    open_logins: tuple[str, ...] = ()
    probe: Probe | None = None
    big_probe: Probe | None = None
    management: ManagementFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the checks judge; `broker` is None where services are embedded.

    `contracts` are by service: what the running service says of itself, else what the code here declares.
    """

    settings: Settings
    environment: Mapping[str, str]
    services: tuple[ServiceFacts, ...]
    contracts: Mapping[str, Contract]
    databases: tuple[DatabaseFacts, ...]
    broker: BrokerFacts | None

    @property
    def clocks(self) -> list[ClockFacts]:
        """The clocks that could be read."""
        management = self.broker.management if self.broker else None
        known = [
            *(each.clock for each in self.services),
            *(each.clock for each in self.databases),
            management.clock if management else None,
        ]
        return [each for each in known if each]
