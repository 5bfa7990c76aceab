"""The fulfillment service: the coordinator of the order saga."""
