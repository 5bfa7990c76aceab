"""The car rental books a car, and cancels it if the trip fails."""
