"""How far a saga is: the status of its steps, its progress and its summary, from log entries alone."""
