"""What a service's author writes: events, sagas, steps, retry policies; and the choreography that they form."""
