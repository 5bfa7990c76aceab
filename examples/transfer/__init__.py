"""A bank transfer: its services share the events in `examples.transfer.events`, and nothing else."""
