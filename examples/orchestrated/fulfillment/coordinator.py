"""The coordinator of the order saga: it asks the steps of the four services, one after the other."""

from __future__ import annotations

from datetime import timedelta

from services.events import OrderCreated, order_saga
from toolkit import SagaOrchestrator, SagaStep


class OrderFulfillment(SagaOrchestrator, saga=order_saga):
    """Reserves the goods, takes the money, ships, and confirms; the customer gets a notice if that fails."""

    failed_end = SagaStep("send_cancellation_notice")

    def define_steps(self, data: OrderCreated) -> list[SagaStep]:
        """Return the steps; no timeout is shorter than the step's own, so that a late step refuses by itself."""
        return [
            SagaStep("reserve_inventory", timeout=timedelta(minutes=2)),
            SagaStep("process_payment", timeout=timedelta(minutes=1)),
            SagaStep("create_shipment", timeout=timedelta(minutes=15)),
            SagaStep("send_confirmation", timeout=timedelta(minutes=2)),
        ]
