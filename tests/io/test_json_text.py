"""Files of JSON that are parsed, and those that are refused before anything is made of them."""

from __future__ import annotations

import json

import pytest

from kofn.io.json_text import parsed


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[" * 101 + "]" * 101, "nested more than 100 deep"),
        ('{"a":' * 900 + "1" + "}" * 900, "nested more than 100 deep"),
        ("[" * 200_000 + "]" * 200_000, "nested more than 100 deep"),
        ('["\\ud800"]', "half of a surrogate pair"),
        ('{"\\uDC00": 1}', "half of a surrogate pair"),
        ("{", "Expecting"),
    ],
)
def test_refused(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parsed(text)


def test_parsed() -> None:
    deepest = "[" * 100 + "]" * 100
    assert parsed(deepest) == json.loads(deepest)
    assert parsed("[" + "[]," * 1000 + "{}]") == [[]] * 1000 + [{}]
    assert parsed('["\\ud83d\\ude00", "\N{GRINNING FACE}"]') == ["\N{GRINNING FACE}"] * 2
    assert parsed('{"a": 1}', lambda pairs: pairs) == [("a", 1)]
