"""Code that the toolkit does not own, a step say: what it may raise, and how long it may take."""
