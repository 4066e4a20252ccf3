"""What was made last is not made again, as long as there is room."""

from fedunlearn.federation.engines.flower.recent import Recent


def test_it_is_made_once_and_the_oldest_goes_first() -> None:
    made: list[str] = []
    recent = Recent[str](room=10)

    def get(key: str, size: int) -> str:
        def make() -> str:
            made.append(key)
            return key.upper()

        return recent.get(key, size, make)

    assert [get("a", 4), get("b", 4), get("a", 4)] == ["A", "B", "A"] and made == ["a", "b"]
    get("c", 4)  # b was used least recently
    get("a", 4)
    assert made == ["a", "b", "c"]
    get("b", 4)
    assert made == ["a", "b", "c", "b"]


def test_one_that_is_too_large_stays_while_it_is_the_last() -> None:
    numbers, recent = iter(range(3)), Recent[int](room=1)
    assert [recent.get("large", 100, lambda: next(numbers)) for _ in range(3)] == [0, 0, 0]
