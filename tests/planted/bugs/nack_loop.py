"""A message whose step raises is given back and taken again at once, for ever: no backoff, no end, no way past it."""

BLAME = "            raise_unless_at_fault(result, handler)\n"
VERDICTS = ("            if savepoint and (not savepoint.is_active", "            raise fallback from result.error")

EDITS = {
    "toolkit/runtime/step_runner.py": [
        (BLAME + each, BLAME + "            raise result.error\n" + each) for each in VERDICTS
    ],
    "toolkit/runtime/failed_batches.py": [
        (
            "        delivery.commit_error = error if isinstance(error, Exception) else None\n"
            "        await self._execute([delivery])\n",
            "        self._requeue(delivery, first=True)\n",
        ),
    ],
}
CAUGHT_BY = [
    "tests/conformance/test_a_saga_ends.py::test_spent_retries_refuse_the_step",
    "tests/unit/runtime/test_failed_attempts.py::test_a_failed_attempt_returns_to_its_own_queue",
]
