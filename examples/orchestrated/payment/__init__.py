"""The order saga's payment service, unchanged."""
