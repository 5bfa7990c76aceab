"""The order saga's notification service, unchanged."""

from services.notification.app import app

__all__ = ["app"]
