"""Bugs that are planted into a copy of the toolkit, to see that the tests catch them: tests of the tests."""
