"""The depot: a FastStream application with its own tables, and a participant of the delivery saga."""
