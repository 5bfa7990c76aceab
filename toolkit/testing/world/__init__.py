"""Sagas of a team's services in one process, told as given, when and then, on a clock that skips time."""
