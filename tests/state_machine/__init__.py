"""Random orders of events and faults on the real toolkit, with invariants after each step."""
