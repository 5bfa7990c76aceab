"""The checks of the doctor: each judges the facts that the probes gathered."""
