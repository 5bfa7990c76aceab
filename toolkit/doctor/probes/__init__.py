"""What the doctor asks, and whom: the broker, databases, services, clocks."""
