"""The HTTP API of one service: is it well, what do its sagas do, what needs a person; and, with a token, what helps.

Every answer is JSON, but for that to Prometheus; errors too: 400 says what is allowed, 503 that the database is away.
Nothing is written, and no message is shown, without `Authorization: Bearer` and the service's SAGA_API_TOKEN.
"""

from toolkit.api.access import Access
from toolkit.api.context import ApiContext
from toolkit.api.routes import api_routes, application, health_routes

__all__ = ["Access", "ApiContext", "api_routes", "application", "health_routes"]
