"""E-mail and public IP addresses.

Left alone: addresses at example domains and of no person ("noreply"), private, loopback and
documentation IP ranges, and what reads like a version, a section of a standard or an object
identifier. Four numbers in a row of which three are below 20 are taken for such; of the addresses
there are that is one in five hundred.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

import ahocorasick_rs

Found = Iterator[tuple[int, int, str]]  # start, end, kind

_EMAIL_LOCAL = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}\Z")
_EMAIL_DOMAIN = re.compile(
    rb"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}([A-Za-z]{2,24})(?![\w@(\[-]|/\w)"
)
_GENERIC_DOMAINS = frozenset(
    b"com org net edu gov mil int info biz name pro dev app io ai me tv online tech site email"
    b" cloud science systems software technology solutions company group world blog academy"
    b" agency art asia center chat club codes community consulting coop design digital"
    b" education engineering expert finance foundation fun fyi games global guru health host"
    b" institute international jobs land life live ltd mail media mobi museum network news"
    b" ninja page rocks run school services shop space store studio support team today tools"
    b" top training travel university us vip website wiki work works xyz zone".split()
)
# Countries, without the ends that are file types too (py js ts md rs sh so cs kt cc).
_COUNTRIES = frozenset(
    b"ac ad ae af ag al am ao ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt"
    b" bw by bz ca cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg"
    b" es et eu fi fj fk fm fo fr ga gd ge gf gg gh gi gl gm gn gp gr gt gu gy hk hn hr ht hu id"
    b" ie il im in iq ir is it je jm jo jp ke kg kh ki km kr kw ky kz la lb lc li lk lr lt lu lv"
    b" ly ma mc mg mk ml mm mn mo mp mq mr mt mu mv mw mx my mz na nc ne nf ng ni nl no np nr nu"
    b" nz om pa pe pf pg ph pk pl pm pn pr ps pt pw qa re ro ru rw sa sb sc sd se sg si sk sl sm"
    b" sn sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tw tz ua ug uk uy uz va"
    b" vc ve vg vi vn vu wf ws ye yt za zm zw".split()
)
_SAFE_DOMAIN = re.compile(
    rb"^([a-z])\1*\.[a-z]+$|^(?:openssh\.com|libssh\.org)$"  # the latter end names of algorithms
    rb"|(?:^|\.)(?:example\d*|test|invalid|localhost|local|email|company|hostname|foo|bar|baz|acme|somewhere"
    rb"|domain|(?:my|your|some|the|our)-?(?:domain|mail|host|company|site|server|org|name|email))"
    rb"(?:\.|$)"
)
# Of nobody: SSH users, mail robots, and names that stand for one.
_SAFE_LOCAL = frozenset(
    b"git hg svn noreply no-reply donotreply user username your_email your.email youremail"
    b" your-email email password".split()
)
# What an escape in a string takes from the local part: the n of "\nada@...".
_ESCAPE = re.compile(rb"(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[abfnrtv0])")
_IN_URL = re.compile(rb"://[^\s/@\"'<>]{0,64}\Z")

_IPV4 = re.compile(rb"(?:(?<![\w.])|(?<=\\[nrt]))(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
# With every digit written as 0 literals can be searched for, which is ten times as fast.
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")
_IPV4_SHAPES = ahocorasick_rs.BytesAhoCorasick(
    [b"0." + b"0" * i + b"." + b"0" * j + b".0" for i in (1, 2, 3) for j in (1, 2, 3)],
    ahocorasick_rs.MatchKind.LeftmostFirst,
)
# Global unicast is 2000::/3, so every public address starts with 2 or 3 and three more digits.
_HEX_AS_ZERO = bytes.maketrans(b"123456789abcdefABCDEF", b"0" * 21)
_IPV6_GROUP = b"0000:"
_IPV6 = re.compile(
    rb"(?:(?<![\w:.])|(?<=\\[nrt]))[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])"
)
_MIN_IPV6_GROUPS = 3  # `rows[2000::2]` has two
_VERSION_BEFORE = re.compile(
    rb"(?:(?:\bv|ver|version|release|\brev|revision|build|sections?|chapter|firmware|update)"
    rb"[\s:=\"'_,>(-]{0,6}|[=<>~!]=\s?|\^|~>?\s?|[A-Za-z0-9][-_]|[A-Za-z]/v?|[A-Za-z]@|oid\W{1,4})\Z",
    re.IGNORECASE,
)
_VERSION_AFTER = re.compile(rb"-|\.(?:tar|zip|whl|exe|dll|so|jar|nupkg|gz|deb|rpm)\b")
_MAX_VERSION_PART = 19  # of all parts but one
_PLACEHOLDERS = frozenset((b"12.34.56.78", b"123.45.67.89", b"123.123.123.123"))


def find_emails(data: bytes) -> Found:
    """E-mail addresses, the login of a URL (`https://name@host`) left out."""
    at = data.find(b"@")
    while at >= 0:
        local = _EMAIL_LOCAL.search(data, max(0, at - 64), at)
        if local is not None and (domain := _EMAIL_DOMAIN.match(data, at + 1)) is not None:
            start = _after_escape(data, local.start())
            name = data[start:at].lower()
            if (
                name
                and name not in _SAFE_LOCAL
                and _is_address_domain(domain.group().lower(), domain.group(1).lower())
                and not _IN_URL.search(data, max(0, start - 80), start)
            ):
                yield start, domain.end(), "email"
        at = data.find(b"@", at + 1)


def _after_escape(data: bytes, start: int) -> int:
    before = data[max(0, start - 8) : start]
    num_backslashes = len(before) - len(before.rstrip(b"\\"))
    if num_backslashes % 2 and (escape := _ESCAPE.match(data, start)):
        return escape.end()
    return start


def _is_address_domain(domain: bytes, last: bytes) -> bool:
    return (last in _GENERIC_DOMAINS or last in _COUNTRIES) and not _SAFE_DOMAIN.search(domain)


def find_ip_addresses(data: bytes) -> Found:
    """Public IPv4 and IPv6 addresses."""
    if _IPV4_SHAPES.find_matches_as_indexes(data.translate(_DIGITS_AS_ZERO)):
        for match in _IPV4.finditer(data):
            if _is_public_v4(data, match):
                yield *match.span(), "ip_address"
    folded = data.translate(_HEX_AS_ZERO)
    start = folded.find(_IPV6_GROUP)
    while start >= 0:
        address = _IPV6.match(data, start)
        if address is not None and _is_public_v6(address.group().decode("ascii")):
            yield *address.span(), "ip_address"
        start = folded.find(_IPV6_GROUP, start + len(_IPV6_GROUP))


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
    if not address.is_global or address.is_multicast or match.group() in _PLACEHOLDERS:
        return False
    first, second, *_ = address.packed
    is_oid = first <= 2 and second <= 16  # roots such as 1.3 and 2.5
    if is_oid or sorted(address.packed)[-2] <= _MAX_VERSION_PART:
        return False
    start, end = match.span()
    before = data[max(0, start - 24) : start]
    return not (_VERSION_BEFORE.search(before) or _VERSION_AFTER.match(data, end))
