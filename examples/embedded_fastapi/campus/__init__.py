"""The campus: a FastAPI application with its own tables, and a participant of the enrolment saga."""
