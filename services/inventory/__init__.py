"""The inventory service holds the stock, and reserves what an order asks for."""
