"""The declarations of a service's author: events, sagas, steps, retry policies, and the choreography they form."""
