"""One module for each revision, in their order; a released one never changes."""
