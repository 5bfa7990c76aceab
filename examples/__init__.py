"""Examples: each package is a saga of its own, with its services, its demonstration and its README."""
