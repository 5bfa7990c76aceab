"""The order saga's inventory service, unchanged."""

from services.inventory.app import app

__all__ = ["app"]
