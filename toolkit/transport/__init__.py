"""Transports between services: RabbitMQ, or one process. docs/explanation/transports.md lists what one implements."""
