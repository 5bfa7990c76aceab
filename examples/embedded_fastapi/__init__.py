"""A FastAPI application that starts sagas in its own transactions, and takes part in them."""
