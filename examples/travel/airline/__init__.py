"""The airline books a seat, and cancels it if the trip fails."""
