"""A service in a team's own application: in its transactions, in its event loop, and below a path of its API."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.embedding.faststream_app import participate
    from toolkit.embedding.lifespan import saga_lifespan
    from toolkit.embedding.mounted_api import saga_api
    from toolkit.embedding.team_sessions import NoOutboxError
    from toolkit.embedding.transactions import AnswerRefusedError

__all__ = ["AnswerRefusedError", "NoOutboxError", "participate", "saga_api", "saga_lifespan"]

#: The module of each public name; the imports above declare the same to mypy and to editors.
_HOMES = {
    "AnswerRefusedError": "transactions",
    "NoOutboxError": "team_sessions",
    "participate": "faststream_app",
    "saga_api": "mounted_api",
    "saga_lifespan": "lifespan",
}
_EXTRAS = {"participate": "rabbitmq", "saga_api": "api", "saga_lifespan": "rabbitmq"}

if not TYPE_CHECKING:  # to mypy a module with `__getattr__` has every name
    from toolkit.lazy_names import on_first_use

    __getattr__, __dir__ = on_first_use(__name__, _HOMES, _EXTRAS)
