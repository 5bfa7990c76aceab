"""The shop as chaos finds it: the four services with two more sagas, and the releases that follow one another."""
