"""Services from outside: over their HTTP APIs, or in their databases.

`connect` opens a `SagaClient`, which starts sagas, reads them and waits for their ends. The names below are imported
at need, as those of `toolkit` are.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.client.database_client import DatabaseClient
    from toolkit.client.http_client import HttpClient
    from toolkit.client.saga_client import NotEndedError, NotStartingError, SagaClient, connect
    from toolkit.client.saga_report import SagaReport
    from toolkit.client.service_client import ServiceClient

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

if not TYPE_CHECKING:  # to mypy a module with this function has every name

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
