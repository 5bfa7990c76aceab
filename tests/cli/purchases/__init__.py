"""A package of services, as the command line finds them: one that waits for an answer."""
