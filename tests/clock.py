"""Time that passes only when a test says so."""


class FakeClock:
    """A monotonic clock in float seconds. It does not start at 0, where "not set" and "the beginning" look alike."""

    def __init__(self, start: float = 1_000.0) -> None:
        self._now = start

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"a monotonic clock does not go back: {seconds}")
        self._now += seconds

    def __repr__(self) -> str:
        return f"FakeClock({self._now})"
