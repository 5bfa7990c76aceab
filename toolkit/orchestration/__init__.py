"""Sagas with a coordinator: it asks one step after the other, and undoes them in reverse; see `SagaOrchestrator`."""
