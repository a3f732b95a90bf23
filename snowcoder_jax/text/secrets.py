"""Secrets and personal data in raw text: private keys, tokens, e-mail and public IP addresses.

Spans are half-open, in UTF-8 bytes of the raw content, sorted and disjoint; what they cover is
never recorded. Each kind of secret is looked for only where a literal that it must hold occurs.

Left alone: addresses at example domains, private, loopback and documentation IP ranges,
placeholders, and what reads like a version number. Four small numbers in a row (all below 20) are
taken for a version.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

import ahocorasick_rs

KINDS = ("private_key", "key", "email", "ip_address")


class Span(TypedDict):
    """Bytes `start` to `end` of the raw content; `kind` is one of `KINDS`."""

    start: int
    end: int
    kind: str


_PEM_BEGIN = b"PRIVATE KEY"
_PEM = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    rb"(?:[^-]|-(?!----)){0,20000}?"
    rb"(?:-----END (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----)"
)
# Without its end: the marker and the lines of base64 after it.
_PEM_OPEN = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    rb"(?:[\s\"'+,\\nr]{0,40}[A-Za-z0-9+/=]{16,})+"
)

_LEFT = rb"(?<![A-Za-z0-9_])"
_RIGHT = rb"(?![A-Za-z0-9_])"

# (a literal that must occur, the token): shapes as their makers publish them.
_TOKENS: tuple[tuple[bytes, re.Pattern[bytes]], ...] = tuple(
    (literal, re.compile(_LEFT + shape + _RIGHT))
    for literal, shape in (
        (b"AKIA", rb"AKIA[A-Z2-7]{16}"),
        (b"ASIA", rb"ASIA[A-Z2-7]{16}"),
        (b"ghp_", rb"ghp_[A-Za-z0-9]{36,251}"),
        (b"gho_", rb"gho_[A-Za-z0-9]{36,251}"),
        (b"ghu_", rb"ghu_[A-Za-z0-9]{36,251}"),
        (b"ghs_", rb"ghs_[A-Za-z0-9]{36,251}"),
        (b"ghr_", rb"ghr_[A-Za-z0-9]{36,251}"),
        (b"github_pat_", rb"github_pat_[A-Za-z0-9_]{22,255}"),
        (b"glpat-", rb"glpat-[A-Za-z0-9_-]{20,64}"),
        (b"xox", rb"xox[abeoprs]-[A-Za-z0-9-]{10,250}"),
        (b"hooks.slack.com", rb"hooks\.slack\.com/services/[A-Za-z0-9/]{20,80}"),
        (b"AIza", rb"AIza[A-Za-z0-9_-]{35}"),
        (b"ya29.", rb"ya29\.[A-Za-z0-9_-]{20,400}"),
        (b"sk_live_", rb"sk_live_[A-Za-z0-9]{16,250}"),
        (b"rk_live_", rb"rk_live_[A-Za-z0-9]{16,250}"),
        (b"sk-", rb"sk-(?:[a-z]{2,10}-)?[A-Za-z0-9_-]{32,250}"),
        (b"hf_", rb"hf_[A-Za-z0-9]{34,40}"),
        (b"npm_", rb"npm_[A-Za-z0-9]{36}"),
        (b"pypi-AgE", rb"pypi-AgE[A-Za-z0-9_-]{40,500}"),
        (b"SG.", rb"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
        (b"eyJ", rb"eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{20,1000}"),
    )
)
_TOKEN_BY_LITERAL = dict(_TOKENS)
_LITERALS = (*_TOKEN_BY_LITERAL, _PEM_BEGIN)
_LITERAL_SEARCH = ahocorasick_rs.BytesAhoCorasick(list(_LITERALS))

# Looked for in the folded text; what follows must read like `..._name": "value"`.
_ASSIGNED_WORDS = (
    b"api_key",
    b"apikey",
    b"secret",
    b"token",
    b"passw",
    b"private_key",
    b"access_key",
    b"credential",
)
_ASSIGNED_SEARCH = ahocorasick_rs.BytesAhoCorasick(list(_ASSIGNED_WORDS))
_ASSIGNED = re.compile(
    rb"[A-Za-z0-9_]{0,24}[\"']?\s{0,4}(?:=>|:=|=|:)\s{0,4}"
    rb"[\"']([A-Za-z0-9+/_.=~!@#$%^&*-]{16,200})[\"']"
)
_PLACEHOLDER = re.compile(
    rb"example|xxxx|your|change|dummy|sample|placeholder|1234567|abcdef|test|fake|<|\{|\$\(|\.\.\.",
    re.IGNORECASE,
)
_WORD_JOINTS = re.compile(rb"[._/:-]")
_WORD_PIECE = re.compile(rb"[A-Za-z]*\d{0,2}")
MIN_ENTROPY_BITS = 3.5  # per character

_EMAIL_LOCAL = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}\Z")
_EMAIL_DOMAIN = re.compile(
    rb"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}([A-Za-z]{2,24})(?![\w@(\[-])"
)
_GENERIC_DOMAINS = frozenset(
    b"com org net edu gov mil int info biz name pro dev app io ai me tv online tech site "
    b"email cloud science systems software technology solutions company group world blog".split()
)
# Two-letter ends that are file types; every other is taken for a country.
_FILE_TYPES = frozenset(b"py js ts md rs sh so cs kt cc".split())
_SAFE_DOMAIN = re.compile(
    rb"(?:^|\.)(?:example|test|invalid|localhost|local|domain|company|foo|bar|acme|your-?domain)"
    rb"(?:\.|$)"
    rb"|(?:^|\.)(?:example)\d*\."
)
_SAFE_LOCAL = frozenset((b"git", b"noreply", b"no-reply", b"user", b"username", b"your_email"))

_IPV4 = re.compile(rb"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
# With every digit written as 0 a literal can be searched for, which is ten times as fast.
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")
_IPV4_SHAPE = re.compile(rb"0\.0{1,3}\.0{1,3}\.0")
# Global unicast is 2000::/3, so every public address starts with 2 or 3 and three more digits.
_HEX_AS_ZERO = bytes.maketrans(b"123456789abcdefABCDEF", b"0" * 21)
_IPV6_SHAPE = ahocorasick_rs.BytesAhoCorasick([b"0000:"])
_IPV6 = re.compile(rb"(?<![\w:.])[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_MIN_IPV6_GROUPS = 3  # `rows[2000::2]` has two
_VERSION_BEFORE = re.compile(
    rb"(?:\b(?:v|ver|version|release|rev|build|sections?|chapter)[\s:=\"'_-]{0,3}|[=<>~!]=\s?|\^|[A-Za-z0-9]-)\Z",
    re.IGNORECASE,
)
_VERSION_AFTER = re.compile(rb"-|\.(?:tar|zip|whl|exe|dll|so)\b")
_MAX_VERSION_PART = 19


def find_spans(content: str) -> list[Span]:
    """Every secret of a text.

    What one secret hides may complete another once it is replaced, so the search is repeated on
    the text with the found spans blanked until nothing is new: redacting twice changes nothing.
    """
    data = content.encode("utf-8", "surrogatepass")
    spans: list[Span] = []
    while found := _find_once(data):
        spans += found
        blanked = bytearray(data)
        for span in found:
            size = span["end"] - span["start"]
            blanked[span["start"] : span["end"]] = b"<" + b"\0" * (size - 2) + b">"
        data = bytes(blanked)
    return sorted(spans, key=lambda s: s["start"])


def redact(content: str, spans: Sequence[Span] | Sequence[Mapping[str, object]]) -> str:
    """Replace spans by markers such as `<EMAIL_1>`; the same secret has the same number.

    Numbers count the different secrets of a kind in the order of their first appearance.

    Args:
      content: the raw text that the spans were found in.
      spans: disjoint, sorted.
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
        number = of_kind.setdefault(data[start:end], len(of_kind) + 1)
        pieces += [data[position:start], f"<{kind.upper()}_{number}>".encode()]
        position = end
    pieces.append(data[position:])
    return b"".join(pieces).decode("utf-8", "surrogatepass")


def _find_once(data: bytes) -> list[Span]:
    candidates = [
        *_private_keys_and_tokens(data),
        *_assigned(data),
        *_emails(data),
        *_ip_addresses(data),
    ]
    # The earliest wins, of those the longest; what overlaps it is found in the next round.
    candidates.sort(key=lambda c: (c[0], -c[1]))
    spans: list[Span] = []
    for start, end, kind in candidates:
        if not spans or start >= spans[-1]["end"]:
            spans.append(Span(start=start, end=end, kind=kind))
    return spans


Found = Iterator[tuple[int, int, str]]


def _private_keys_and_tokens(data: bytes) -> Found:
    present = {_LITERALS[m[0]] for m in _LITERAL_SEARCH.find_matches_as_indexes(data)}
    if _PEM_BEGIN in present:
        for pattern in (_PEM, _PEM_OPEN):
            for match in pattern.finditer(data):
                yield *match.span(), "private_key"
    for literal in sorted(present - {_PEM_BEGIN}):
        for match in _TOKEN_BY_LITERAL[literal].finditer(data):
            token = match.group()
            # Published keys of documentation, and rows of one letter.
            if b"EXAMPLE" not in token and len(set(token)) >= 10:
                yield *match.span(), "key"


def _assigned(data: bytes) -> Found:
    for _, _, end_of_word in _ASSIGNED_SEARCH.find_matches_as_indexes(data.lower()):
        match = _ASSIGNED.match(data, end_of_word)
        if match is not None and _is_random(match.group(1)):
            yield *match.span(1), "key"


def _is_random(value: bytes) -> bool:
    """Letters and digits of high entropy that do not read as words or a placeholder."""
    if _PLACEHOLDER.search(value) or not re.search(rb"\d", value):
        return False
    if not re.search(rb"[A-Za-z]", value):
        return False
    reads_as_words = all(_WORD_PIECE.fullmatch(p) for p in _WORD_JOINTS.split(value))
    return not reads_as_words and _entropy_bits(value) >= MIN_ENTROPY_BITS


def _entropy_bits(value: bytes) -> float:
    counts = Counter(value).values()
    return -sum(c / len(value) * math.log2(c / len(value)) for c in counts)


def _emails(data: bytes) -> Found:
    at = data.find(b"@")
    while at >= 0:
        local = _EMAIL_LOCAL.search(data, max(0, at - 64), at)
        domain = _EMAIL_DOMAIN.match(data, at + 1)
        if local is not None and domain is not None:
            is_ssh = local.group().lower() in _SAFE_LOCAL
            if not is_ssh and _is_address_domain(domain.group().lower(), domain.group(1).lower()):
                yield local.start(), domain.end(), "email"
        at = data.find(b"@", at + 1)


def _is_address_domain(domain: bytes, last: bytes) -> bool:
    if _SAFE_DOMAIN.search(domain):
        return False
    return last in _GENERIC_DOMAINS or (len(last) == 2 and last not in _FILE_TYPES)


def _ip_addresses(data: bytes) -> Found:
    if _IPV4_SHAPE.search(data.translate(_DIGITS_AS_ZERO)):
        for match in _IPV4.finditer(data):
            if _is_public_v4(data, match):
                yield *match.span(), "ip_address"
    if _IPV6_SHAPE.find_matches_as_indexes(data.translate(_HEX_AS_ZERO)):
        for match in _IPV6.finditer(data):
            if _is_public_v6(match.group().decode("ascii")):
                yield *match.span(), "ip_address"


def _is_public_v6(text: str) -> bool:
    if sum(bool(group) for group in text.split(":")) < _MIN_IPV6_GROUPS:
        return False
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return address.is_global and not _is_documentation(address)


def _is_documentation(address: ipaddress.IPv6Address) -> bool:
    return any(address in ipaddress.IPv6Network(n) for n in ("2001:db8::/32", "3fff::/20"))


def _is_public_v4(data: bytes, match: re.Match[bytes]) -> bool:
    try:
        address = ipaddress.IPv4Address(match.group().decode("ascii"))
    except ValueError:
        return False
    if not address.is_global or address.is_multicast:
        return False
    if max(address.packed) <= _MAX_VERSION_PART:
        return False
    start, end = match.span()
    before = data[max(0, start - 16) : start]
    return not (_VERSION_BEFORE.search(before) or _VERSION_AFTER.match(data, end))
