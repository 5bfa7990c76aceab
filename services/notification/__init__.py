"""The notification service tells the customer how an order ended."""
