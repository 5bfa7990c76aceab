"""A service in a team's own application: it starts and answers sagas in the application's transactions."""
