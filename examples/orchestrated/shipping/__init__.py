"""The order saga's shipping service, unchanged."""
