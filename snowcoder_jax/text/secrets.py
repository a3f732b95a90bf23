"""Secrets and personal data in raw text: keys, tokens, passwords, e-mail and public IP addresses.

Spans are half-open, in UTF-8 bytes of the raw content, sorted and disjoint; what they cover is
never recorded. Each kind of secret is looked for only where a literal that it must hold occurs.

A notebook is JSON, and its script says what the strings of it say: it is searched as they read,
so that no escape and no break between two lines hides or halves a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from snowcoder_jax import languages
from snowcoder_jax.text import json_strings, personal_data, secret_shapes, secret_values

# Real texts need two or three; only what is made to, such as a thousand tokens run together of
# which each completes the one before, would need more, and then the time of each counts.
MAX_ROUNDS = 16

KINDS = ("private_key", "key", "password", "email", "ip_address")


class Span(TypedDict):
    """Bytes `start` to `end` of the raw content; `kind` is one of `KINDS`."""

    start: int
    end: int
    kind: str


def find_spans(content: str, language: str | None = None) -> list[Span]:
    """Every secret of a text; of a notebook, as its strings read.

    What one secret hides may complete another once it is replaced, so the search is repeated on
    the text with the found spans blanked until nothing is new: redacting twice changes nothing.
    """
    data = content.encode("utf-8", "surrogatepass")
    if language != languages.NOTEBOOK:
        return _find_all(data)
    text = json_strings.PlainText(data)
    spans = []
    for span in _find_all(text.data):
        start, end = text.raw_span(span["start"], span["end"])
        spans.append(Span(start=start, end=end, kind=span["kind"]))
    return spans


def _find_all(data: bytes) -> list[Span]:
    spans: list[Span] = []
    for _ in range(MAX_ROUNDS):
        found = _find_once(data)
        if not found:
            break
        spans += found
        blanked = bytearray(data)
        for span in found:
            size = span["end"] - span["start"]
            blanked[span["start"] : span["end"]] = b"<" + b"\0" * (size - 2) + b">"
        data = bytes(blanked)
    return sorted(spans, key=lambda s: s["start"])


def redact(
    content: str,
    spans: Sequence[Span] | Sequence[Mapping[str, object]],
    language: str | None = None,
) -> str:
    """Replace spans by markers such as `<EMAIL_1>`; the same secret has the same number.

    Numbers count the different secrets of a kind in the order of their first appearance.

    Args:
      content: the raw text that the spans were found in.
      spans: disjoint, sorted.
      language: in a notebook the same secret may be escaped in several ways.
    """
    if not spans:
        return content
    data = content.encode("utf-8", "surrogatepass")
    numbers: dict[str, dict[bytes, int]] = {}
    pieces: list[bytes] = []
    position = 0
    for span in spans:
        start, end, kind = int(str(span["start"])), int(str(span["end"])), str(span["kind"])
        assert position <= start < end <= len(data), "spans of another text"
        of_kind = numbers.setdefault(kind, {})
        secret = data[start:end]
        if language == languages.NOTEBOOK:
            secret = json_strings.unescape(secret)
        number = of_kind.setdefault(secret, len(of_kind) + 1)
        pieces += [data[position:start], f"<{kind.upper()}_{number}>".encode()]
        position = end
    pieces.append(data[position:])
    return b"".join(pieces).decode("utf-8", "surrogatepass")


def _find_once(data: bytes) -> list[Span]:
    by_context = [*secret_values.find_assigned(data), *secret_values.find_in_headers(data)]
    candidates = [
        *secret_shapes.find_shaped(data),
        *by_context,
        *secret_values.find_repeats(data, by_context),
        *personal_data.find_emails(data),
        *personal_data.find_ip_addresses(data),
    ]
    # The earliest wins, of those the longest; what overlaps it is found in the next round.
    candidates.sort(key=lambda c: (c[0], -c[1]))
    spans: list[Span] = []
    for start, end, kind in candidates:
        if not spans or start >= spans[-1]["end"]:
            spans.append(Span(start=start, end=end, kind=kind))
    return spans
