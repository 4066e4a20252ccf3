"""What was made last is not made again, as long as there is room."""

from fedunlearn.federation.engines.flower.recent import Recent


def test_it_is_made_once_and_the_oldest_goes_first() -> None:
    made: list[str] = []
    recent = Recent[str](room=10)

    def get(key: str, size: int) -> str:
        return recent.get(key, size, lambda: made.append(key) or key.upper())

    assert [get("a", 4), get("b", 4), get("a", 4)] == ["A", "B", "A"] and made == ["a", "b"]
    get("c", 4)  # b was used least recently
    get("a", 4)
    assert made == ["a", "b", "c"]
    get("b", 4)
    assert made == ["a", "b", "c", "b"]


def test_one_that_is_too_large_stays_while_it_is_the_last() -> None:
    made: list[int] = []
    recent = Recent[int](room=1)
    for _ in range(3):
        recent.get("large", 100, lambda: made.append(0) or 7)
    assert made == [0]
