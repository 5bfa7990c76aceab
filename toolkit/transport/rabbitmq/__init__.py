"""The RabbitMQ transport: connection, topology, consumer, acknowledgements and publishing."""
