"""The real toolkit in one thread, on a clock that the test moves: each run of a test is the same.

Its loops, leases, polls and timeouts are those of production. Replaced are the parts below them: the event loop's
clock, the thread of SQLite's driver, and the broker.
"""
