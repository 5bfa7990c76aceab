"""The order saga's payment service, unchanged."""

from services.payment.app import app

__all__ = ["app"]
