"""The services of the order saga; they share the events in `services.events`, and nothing else."""
