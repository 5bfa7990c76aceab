"""The shipping service sends the goods of an order."""
