"""The order saga's notification service, unchanged."""
