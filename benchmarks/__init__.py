"""How fast the toolkit is, beside what a team would write today and what the machine allows: `make bench`."""
