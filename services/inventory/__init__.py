"""The inventory service holds the stock, and reserves the goods of an order."""
