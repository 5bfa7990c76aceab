"""Services from outside: over their HTTP APIs, or in their databases.

`connect` opens a `SagaClient`, which starts sagas, reads them and waits for their ends. The names below are imported
at need, as those of `toolkit` are.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.client.database_client import DatabaseClient
    from toolkit.client.http_client import HttpClient
    from toolkit.client.saga_client import NotEndedError, SagaClient, connect
    from toolkit.client.saga_report import SagaReport
    from toolkit.client.service_client import ServiceClient
    from toolkit.errors import NotStartingError

__all__ = [
    "DatabaseClient",
    "HttpClient",
    "NotEndedError",
    "NotStartingError",
    "SagaClient",
    "SagaReport",
    "ServiceClient",
    "connect",
]

#: The module of each public name; the imports above declare the same to mypy and to editors.
_HOMES = {
    "DatabaseClient": "database_client",
    "HttpClient": "http_client",
    "NotEndedError": "saga_client",
    "NotStartingError": "saga_client",
    "SagaClient": "saga_client",
    "SagaReport": "saga_report",
    "ServiceClient": "service_client",
    "connect": "saga_client",
}

if not TYPE_CHECKING:  # to mypy a module with `__getattr__` has every name
    from toolkit.lazy_names import on_first_use

    __getattr__, __dir__ = on_first_use(__name__, _HOMES, {"HttpClient": "client"})
