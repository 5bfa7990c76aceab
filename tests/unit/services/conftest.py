"""The databases of the services' unit tests."""

from tests.service_databases import database_url, engine, session

__all__ = ["database_url", "engine", "session"]
