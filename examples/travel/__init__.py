"""A trip: its services share the events in `examples.travel.events` and an outside system, and nothing else."""
