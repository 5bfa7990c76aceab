"""Random orders of everything that can happen, upon the real toolkit, with invariants after every step."""
