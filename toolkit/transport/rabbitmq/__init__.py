"""The RabbitMQ transport: connection, topology, consumer, acknowledgements and publishing."""

from toolkit.extras import require

require("rabbitmq", "RabbitMQ")
