"""Settings from the environment: the variables, their allowed values and their sources."""
