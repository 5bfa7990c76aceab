"""How messages travel between services: over RabbitMQ, or within one process."""
