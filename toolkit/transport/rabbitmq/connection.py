"""Connections to the broker: their settings, the wait for a broker that is away, and errors with their cure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import structlog
from aio_pika.abc import AbstractRobustConnection
from faststream.rabbit import Channel, RabbitBroker
from faststream.rabbit.prometheus import RabbitPrometheusMiddleware
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from toolkit.configuration.server_urls import hosts_of
from toolkit.configuration.settings import Settings
from toolkit.errors import EscapedError, SagaError, UnreachableError, describe
from toolkit.foreign_code.containment import contain
from toolkit.transport.rabbitmq.acknowledgements import AWAY
from toolkit.transport.rabbitmq.frame_reading import read_frames_at_once
from toolkit.transport.rabbitmq.own_connections import connecting
from toolkit.transport.rabbitmq.refusals import refusal_of
from toolkit.transport.rabbitmq.tolerant_properties import tolerate_malformed_properties
from toolkit.urls import is_loopback

log = structlog.get_logger("toolkit")

#: The client closes a silent connection after three heartbeats and a second each, within half a minute.
_HEARTBEAT = 6
#: Seconds for which a connection, or an answer on one, is awaited; and before the next try.
CONNECT_TIMEOUT, _RECONNECT_INTERVAL = 5, 1
#: Signs of a rejected login in the client's errors. A Close while the connection opens means that the virtual host is
#: closed to the login; the client drops the reason.
_REJECTED = ("ACCESS_REFUSED", "got <Connection.Close")
_CURE = "mend the login, its rights, or the virtual host in SAGA_BROKER_URL"
_CERTIFICATE_CURE = (
    "name its authority's certificate in SAGA_BROKER_URL by ?cafile=FILE, and the host by the certificate's name; "
    "?no_verify_ssl=1 takes any certificate"
)


def broker_of(
    settings: Settings, *, default_channel: Channel, middlewares: Sequence[RabbitPrometheusMiddleware] = ()
) -> RabbitBroker:
    """Return FastStream's broker for one connection: a library here, which neither decodes nor validates."""
    return RabbitBroker(
        with_heartbeat(settings.broker_url),
        default_channel=default_channel,
        middlewares=middlewares,
        apply_types=False,  # the bytes are validated once, by the decoder
        logger=None,  # the toolkit logs what was committed, not what was received
        graceful_timeout=5,
        timeout=CONNECT_TIMEOUT,
        reconnect_interval=_RECONNECT_INTERVAL,
    )


async def open_connection(broker: RabbitBroker) -> AbstractRobustConnection:
    """Connect a broker of the toolkit's; the changes of the client library apply to its connection alone."""
    tolerate_malformed_properties()
    read_frames_at_once()
    with connecting():
        return await broker.connect()


def with_heartbeat(url: str) -> str:
    """Return the broker's URL with the toolkit's heartbeat, unless the URL names one."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    return urlunsplit(parts._replace(query=urlencode({"heartbeat": str(_HEARTBEAT)} | query)))


async def connect_patiently(connect: Any, service: str, settings: Settings) -> None:
    """Repeat `connect()` while the broker is away.

    Raises:
        BrokerRefusesError: the broker answers, and refuses for good what the service needs.
    """
    wait = wait_exponential_jitter(multiplier=0.1, max=2)

    def log_failure(state: Any) -> None:
        error = state.outcome.exception()
        if cure := _cure_of(error):  # an operator may resolve it meanwhile; waiting alone does not
            log.error("the broker refuses us", service=service, error=describe(error), cure=cure)
        else:
            log.warning("waiting for the broker", service=service, error=describe(error))

    async for attempt in AsyncRetrying(
        wait=wait, retry=retry_if_exception_type((*AWAY, EscapedError)), before_sleep=log_failure
    ):
        with attempt:
            try:
                # On a dying connection the client raises CancelledError, though the task was not cancelled.
                await contain("connecting", connect())
            except AWAY as error:
                if refusal := refusal_of(error, settings):
                    raise refusal from error
                raise


def as_error(error: BaseException, settings: Settings) -> SagaError:
    """Return the error for a broker that refuses for good, or else for one that does not answer."""
    return as_unreachable(error) if _refuses(error) else refusal_of(error, settings) or as_unreachable(error)


def as_unreachable(error: BaseException) -> UnreachableError:
    """Return the error for a rejected login, or for a broker that does not answer, in terms of SAGA_BROKER_URL."""
    if cure := _cure_of(error):
        return UnreachableError(f"the broker refuses us at SAGA_BROKER_URL: {describe(error)}; {cure}")
    return UnreachableError(f"the broker does not answer at SAGA_BROKER_URL: {describe(error)}")


def is_in_the_clear(settings: Settings) -> bool:
    """Whether the broker is reached over a network without TLS; a demonstration's passwords are public anyway."""
    is_plain = settings.broker_url.startswith("amqp://") and not settings.demo
    return is_plain and not all(map(is_loopback, hosts_of(settings.broker_url)))


def _cure_of(error: BaseException | None) -> str | None:
    """Return the cure for a rejected login or an untrusted certificate; None when waiting may help."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return _CERTIFICATE_CURE
    return _CURE if _refuses(error) else None


def _refuses(error: BaseException | None) -> bool:
    """Whether the broker rejected the login: it is wrong, or the virtual host is closed to it."""
    return any(sign in str(error) for sign in _REJECTED)


def stands(connection: AbstractRobustConnection | None) -> bool:
    """Whether a connection is open at this moment."""
    return connection is not None and not connection.is_closed and connection.connected.is_set()
