import pytest

from foundation.train.duration import seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("5 sec", 5), ("10min", 600), ("2m", 120), ("1.5h", 5400), ("2 hours", 7200)],
)
def test_a_duration_in_seconds(text: str, expected: float) -> None:
    assert seconds(text) == expected
