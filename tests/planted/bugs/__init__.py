"""One bug per file: what is broken, how, and which tests should notice.

`EDITS` are pairs of what stands in a file and what is put in its place. `CAUGHT_BY` are the tests that are run; one of
them has to fail.
"""
