"""A purchase that a person approves: its services share the events in `examples.approval.events`, and nothing else."""
