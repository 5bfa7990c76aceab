"""The console: one process that reads any number of services, and shows people where a saga is and what is stuck.

It keeps nothing of its own but what is under way: whatever it shows was just read by `ServiceClient`, and whatever it
changes goes through them.
"""
