"""The notification service sends the customer a message about the end of an order."""
