"""The order saga by a coordinator: the four services of `services`, unchanged, and one more that asks their steps."""
