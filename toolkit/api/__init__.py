"""The HTTP API of one service: its health, its sagas, what needs an operator; and, with a token, operations on them.

Every response is JSON, errors too, except `/metrics`; 400 names the allowed values, 503 means a database outage.
Writing, and reading messages, takes `Authorization: Bearer` with the service's SAGA_API_TOKEN.
"""

from toolkit.extras import require

require("api", "the HTTP API")

from toolkit.api.access import Access  # noqa: E402 -- only after the check: it imports the extra's packages
from toolkit.api.context import ApiContext  # noqa: E402 -- as above
from toolkit.api.routes import api_routes, application, health_routes  # noqa: E402 -- as above

__all__ = ["Access", "ApiContext", "api_routes", "application", "health_routes"]
