"""A FastStream application with subscribers of its own, and a participant of a saga beside them."""
