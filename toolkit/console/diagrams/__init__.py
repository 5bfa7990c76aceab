"""The choreography and a saga's sequence as drawings: boxes, arrows and their layout."""
