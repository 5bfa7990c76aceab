"""The checks of the doctor look at the facts that the probes gathered."""
