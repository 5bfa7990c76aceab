"""What runs in a service: batches, the transaction of a batch, external calls, the relay and the background loops."""
