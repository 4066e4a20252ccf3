"""Every line of the events is JSON that any program reads."""

from __future__ import annotations

import io
import json
import math

from fedunlearn.results.events import Events


def test_what_is_not_finite_is_null_however_deep_it_lies() -> None:
    stream, inf = io.StringIO(), math.inf
    settings = {"lr": inf, "layers": [1.5, (-inf, {"deep": math.nan})], "name": "Infinity"}
    Events(stream).tell("result", distance=math.nan, settings=settings, trials=3)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    told = json.loads(stream.getvalue(), parse_constant=refuse)
    assert (told["event"], told["distance"], told["trials"]) == ("result", None, 3)
    assert told["settings"] == {"lr": None, "layers": [1.5, [None, {"deep": None}]], "name": "Infinity"}
