"""The sagas that several suites of tests run: a book that is lent, and a trip that is booked."""
