"""The real toolkit in one thread, upon a clock that a test moves: every run of a test is the same run.

Its loops, leases, polls and timeouts are the ones that run in production. What is put in their place is what lies
below them: the event loop's clock, the thread of SQLite's driver, and the broker.
"""
