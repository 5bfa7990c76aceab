"""The payment service takes the money for an order, and gives it back."""
