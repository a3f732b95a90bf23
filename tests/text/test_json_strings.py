"""What the strings of JSON say, and where each byte of it stands in the raw text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.text.json_strings import PlainText, unescape


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        (r'{"a": "b\u0040c\/d\\\\n\n"}', '{"a": "b@c/d\\\\n\n"}'),
        ('{"a": ["b", "c"\n ,"d"], "e": "f"}', '{"a": ["bcd"], "e": "f"}'),
        ('{"a": "b", "c": "d", "e" : ["f"]}', '{"a": "b", "c": "d", "e" : ["f"]}'),
        (r'[", ", "x\", \"y"]', '[", x", "y"]'),
        ('["a", 1, "b"], ["c"]', '["a", 1, "b"], ["c"]'),
        (r'["\u00e9\ud800"]', '["\u00e9\ud800"]'),
        # No JSON, or not the end of it.
        ("print(1)\\n", "print(1)\\n"),
        (r'["a", "\u004', '["au004'),
        ('["a", "b\\', '["ab\\'),
        ("", ""),
    ],
)
def test_what_strings_say(raw: str, plain: str) -> None:
    assert PlainText(raw.encode()).data.decode("utf-8", "surrogatepass") == plain


JSON = st.recursive(
    st.integers() | st.text(st.characters(codec=None), max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
)


@given(JSON, st.booleans(), st.sampled_from((None, 1)))
def test_every_byte_is_traced_to_its_own(
    value: object, ascii_only: bool, indent: int | None
) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    text = PlainText(raw)
    position = 0
    for i in range(len(text.data)):
        start, end = text.raw_span(i, i + 1)
        assert position <= start or text.raw_span(i - 1, i) == (start, end)
        assert (
            text.data[i : i + 1] in (raw[start:end], unescape(raw[start:end])) or end - start == 6
        )
        position = end


@given(st.text(alphabet='"\\\\u0041,: []n', max_size=60))
def test_any_text_is_read(raw: str) -> None:
    text = PlainText(raw.encode())
    for i in range(len(text.data)):
        start, end = text.raw_span(i, len(text.data))
        assert 0 <= start < end <= len(raw)


def test_hostile_texts_are_gone_through_once() -> None:
    for unit in ('\\"', '"', '", "', "\\", '" ', '":', '"\t,'):
        PlainText(b'"' + unit.encode() * 100_000)
