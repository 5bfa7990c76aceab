"""Transports between services: RabbitMQ, or one process."""
