"""The choreography and a saga's sequence as drawings: nodes, arrows and their layout."""
