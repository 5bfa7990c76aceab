"""The order saga's inventory service, unchanged."""
