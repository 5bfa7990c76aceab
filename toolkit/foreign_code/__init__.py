"""Code that the toolkit does not own, such as steps: contain the errors it raises, and limit its time."""
