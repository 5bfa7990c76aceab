"""The notification service as it is run: `saga run services.notification.app:app`."""

from __future__ import annotations

from services.notification.models import metadata
from services.notification.steps import notification
from toolkit import Service

app = Service(name="notification", participants=[notification], tables=metadata)
