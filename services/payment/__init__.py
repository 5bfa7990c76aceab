"""The payment service takes the money for an order, and refunds it."""
