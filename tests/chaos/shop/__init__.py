"""The shop of the chaos runs: the four services with two more sagas, and their releases."""
