"""The hotel books a room, and cancels it if the trip fails."""
