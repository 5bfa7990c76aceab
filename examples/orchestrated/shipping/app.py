"""The order saga's shipping service, unchanged."""

from services.shipping.app import app

__all__ = ["app"]
