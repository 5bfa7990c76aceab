"""The agency takes the money for a trip once all of it is booked, and reports a trip that failed."""
