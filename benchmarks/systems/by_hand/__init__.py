"""The limits: loops written by hand for this saga alone, with the toolkit's guarantees, and without a framework."""
