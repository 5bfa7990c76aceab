"""What the broker refuses for good, and the cure: an error that waiting does not resolve ends the start at once."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from aio_pika.exceptions import AMQPChannelError

from toolkit.configuration.settings import Settings
from toolkit.errors import BrokerRefusesError, describe

#: The object that the broker names: `queue 'saga.payment' in vhost '/'`.
_OBJECT = re.compile(r"(exchange|queue) '([^']+)'")
#: The exchange in the broker's error about a key: `read access to topic '#' in exchange 'saga' in vhost '/' refused`.
_TOPIC = re.compile(r"to topic '[^']*' in exchange '([^']+)'")
#: Signs of errors that only an operator can resolve. The broker's other errors pass: during the restart of a node.
_LASTING = (
    "inequivalent arg",
    "invalid arg",
    "RESOURCE_LOCKED",
    "ACCESS_REFUSED",
    "limit in vhost",
    "user_id property",
)


def refusal_of(error: BaseException | None, settings: Settings) -> BrokerRefusesError | None:
    """Return the error with its cure when the broker refuses for good; None when a retry may succeed."""
    text = str(error)
    if not isinstance(error, AMQPChannelError):
        return None
    if not any(sign in text for sign in _LASTING):
        return None
    return BrokerRefusesError(f"the broker refuses us: {describe(error)}; {_cure(text, settings)}")


def _cure(text: str, settings: Settings) -> str:
    broker = urlsplit(settings.broker_url)
    vhost = unquote(broker.path[1:]) or "/"
    found = _OBJECT.search(text)
    kind, name = (found[1], found[2]) if found else ("queue", settings.exchange)
    if "ACCESS_REFUSED" in text:
        less = "or what `saga topology --permissions` shows for it"
        if topic := _TOPIC.search(text):
            return f"rabbitmqctl set_topic_permissions -p {vhost} {settings.login} {topic[1]} '.*' '.*', {less}"
        return f"rabbitmqctl set_permissions -p {vhost} {settings.login} '.*' '.*' '.*', {less}"
    if "user_id property" in text:
        return "SAGA_BROKER_URL must name the login that the broker knows: each message carries it as its user-id"
    if "RESOURCE_LOCKED" in text:
        return f"{kind} {name} is exclusive to another connection: close that, or name another SAGA_EXCHANGE"
    if "limit in vhost" in text:
        return f"raise the limit: rabbitmqctl list_vhost_limits -p {vhost}"
    if kind == "exchange":
        delete = f"rabbitmqadmin --vhost={vhost} delete exchange name={name}"
        return f"exchange {name} has another type: name another SAGA_EXCHANGE, or {delete}, and start again"
    return (
        f"{kind} {name} has other arguments: let it run empty or move its messages, then rabbitmqctl delete_queue "
        f"-p {vhost} {name}, and start again; saga doctor names the difference"
    )
