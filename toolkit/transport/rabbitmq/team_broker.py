"""The address of a RabbitMQ broker that an application uses by FastStream."""

from __future__ import annotations

from faststream.rabbit import RabbitBroker

from toolkit.errors import SettingsError


def address_of(broker: object) -> str:
    """Return the URL of FastStream's broker, with its login.

    Raises:
        SettingsError: it is no RabbitMQ broker, or its certificates are in an object that no URL has.
    """
    if not isinstance(broker, RabbitBroker):
        raise SettingsError(
            f"the application has {type(broker).__name__} in place of a RabbitBroker: name the broker of the service "
            "in SAGA_BROKER_URL"
        )
    facts = broker._connection_kwargs  # its public attributes leave out the login
    if facts.get("ssl_context") is not None:
        raise SettingsError(
            "the application's RabbitBroker has an SSLContext, which no URL has: name the broker of the service in "
            "SAGA_BROKER_URL, with its authority's certificate by ?cafile=FILE"
        )
    return str(facts["url"])
