"""The probes of the doctor gather facts from the broker, the databases and the services."""

from toolkit.extras import require

require("rabbitmq", "the doctor")
