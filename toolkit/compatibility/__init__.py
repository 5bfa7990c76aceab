"""Compares the contracts of two releases: what each service still reads, and whether sagas in flight still end."""
