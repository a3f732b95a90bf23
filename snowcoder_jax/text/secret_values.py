"""Secrets without a shape: random strings where a name, a URL or a header calls for a secret."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import ahocorasick_rs

Found = Iterator[tuple[int, int, str]]  # start, end, kind

MIN_ENTROPY_BITS = 3.5  # per character
MIN_ENTROPY_BITS_SHORT = 3.0  # of hexadecimal digits and of values under 20 characters
_SHORT = 20
# At most this share of a random string's letter pairs are among the usual ones; 1% of random
# strings of 16 letters and digits have more, and 5% of the identifiers of installed code less.
MAX_USUAL_PAIRS = 0.6
MAX_USUAL_PAIRS_OF_LETTERS = 0.4  # where there is no digit among the letters
MIN_PAIRS = 6  # fewer tell nothing
# The 150 commonest pairs of letters in the words of identifiers and comments of installed code;
# they are 84% of all pairs there, and 22% of those of random letters.
_USUAL_PAIRS = frozenset(
    b"ab ac ad ag ai al am an ap ar as at au ba be bl bu ca ce ch ck cl co ct da de di ea ec ed"
    b" ee ef el em en ep eq er es et ex fa fi fo ge ha he hi ho ia ic id ie if ig il im in io ir"
    b" is it iz ke la le li ll lo ls lu ly ma me mi mo mp na nc nd ne ng ni no ns nt oc od ol om"
    b" on oo op or os ot ou ow pa pe pi pl po pp pr pt py qu ra re rg ri rm rn ro rr rs rt ry se"
    b" si so sp ss st su ta te th ti to tr ts tt tu ty ue ul um un up ur us ut va ve vi wa wi"
    b" yp".split()
)
_PLACEHOLDER = re.compile(
    rb"example|xxxx|your|change|dummy|sample|placeholder|12345|abcdef|test|fake|mock|secret"
    rb"|passw|token|hmac|pbkdf|sha(?:1|256|384|512)|replace|insert|todo|deadbeef|cafebabe|qwert|<|\{|\$\(|\.\.\.|\*\*\*"
    rb"|(.)\1{4}",
    re.IGNORECASE | re.DOTALL,
)
_LETTER_PAIR = re.compile(rb"(?=([a-z]{2}))")
_WORD_JOINTS = re.compile(rb"[._/:@,+-]")
_WORD = re.compile(rb"[A-Za-z]*\d{0,2}")
_WORD_PIECE = re.compile(rb"[A-Za-z]*\d{0,4}[A-Za-z]{0,2}")  # of several: "Qwen2", "0", "5B"
_HEX = re.compile(rb"[a-f0-9-]+|[A-F0-9-]+")  # a UUID too
_HAS_DIGIT, _HAS_LETTER = re.compile(rb"\d"), re.compile(rb"[A-Za-z]")
_HAS_LOWER, _HAS_UPPER = re.compile(rb"[a-z]"), re.compile(rb"[A-Z]")
_CLASSES = (_HAS_LOWER, _HAS_UPPER, _HAS_DIGIT, re.compile(rb"[^A-Za-z0-9]"))


def is_random(value: bytes) -> bool:
    """Letters and digits of high entropy that read neither as words nor as a placeholder."""
    if not _HAS_LETTER.search(value) or _PLACEHOLDER.search(value):
        return False
    if not _HAS_DIGIT.search(value) and (len(value) < _SHORT or not _is_mixed_letters(value)):
        return False
    is_hex = _HEX.fullmatch(value) is not None
    if not is_hex and _reads_as_words(value):
        return False
    is_short = is_hex or len(value) < _SHORT
    return _entropy_bits(value) >= (MIN_ENTROPY_BITS_SHORT if is_short else MIN_ENTROPY_BITS)


def _is_mixed_letters(value: bytes) -> bool:
    """Small and capital letters in no order of words, where there is no digit to tell."""
    return (
        _HAS_LOWER.search(value) is not None
        and _HAS_UPPER.search(value) is not None
        and _usual_pairs(value, of_few=1.0) < MAX_USUAL_PAIRS_OF_LETTERS
    )


def _reads_as_words(value: bytes) -> bool:
    pieces = _WORD_JOINTS.split(value)
    if len(pieces) > 1 and all(_WORD_PIECE.fullmatch(piece) for piece in pieces):
        return True
    if _WORD.fullmatch(value):
        return _usual_pairs(value, of_few=1.0) >= MAX_USUAL_PAIRS_OF_LETTERS
    return _usual_pairs(value, of_few=0.0) > MAX_USUAL_PAIRS


def _usual_pairs(value: bytes, *, of_few: float) -> float:
    """The share of the letter pairs that are usual in words; `of_few` where there are few."""
    pairs: list[bytes] = _LETTER_PAIR.findall(value.lower())
    if len(pairs) < MIN_PAIRS:
        return of_few
    return sum(pair in _USUAL_PAIRS for pair in pairs) / len(pairs)


def _entropy_bits(value: bytes) -> float:
    counts = Counter(value).values()
    return -sum(c / len(value) * math.log2(c / len(value)) for c in counts)


# Names of secrets, looked for in the folded text; `key` alone is too common to be one.
_WORDS = tuple(b"secret token passw passphrase pwd _pass credential authorization key".split())
_WORDS_SEARCH = ahocorasick_rs.BytesAhoCorasick(
    list(_WORDS), ahocorasick_rs.MatchKind.LeftmostFirst
)
_PASSWORDS = frozenset(b"passw passphrase pwd _pass".split())
_KEY_OWNER = re.compile(
    rb"(?:api|app|application|auth|access|private|account|consumer|client|signing|encrypt(?:ion)?"
    rb"|master|secret|service|shared|subscription|deploy|server|crypt|admin|license|storage|webhook"
    rb"|session|jwt|hmac|aes|ssh)[_. -]?\Z",
    re.IGNORECASE,
)

# The rest of the name, what closes it, the type, what assigns, and a quoted value.
_VALUE = rb"[A-Za-z0-9+/_.=~!@#$%^&*:?,;|-]"
_NAME = rb"([A-Za-z0-9_.-]{0,24})(?:\\?[\"'`])?[\])]?"
_QUOTED = re.compile(
    _NAME + rb"\s{0,4}(?::\s{0,2}[&'A-Za-z][\w\[\]&'. ]{0,20}(?==))?"
    rb"(?:=>|:=|={1,3}|:|,|\((?:[\w.]{1,40},)?|\|\||\?\?|[ \t]+value=|\s)\s{0,4}"
    rb"[@$bBrRuLf]{0,2}\\?[\"'`]{1,3}(?:(?:Bearer|Token|Basic) )?(" + _VALUE + rb"{8,512})\\?[\"'`]"
)
_BARE = re.compile(
    _NAME + rb"[ \t]{0,4}[=:][ \t]{0,4}(?:(?:[Bb]earer|[Tt]oken) )?"
    rb"([A-Za-z0-9+/_=~.-]{16,512})(?=[\s;&\"'`\\<,)]|\Z)"
)
# Markers of secrets that were replaced already are no elements.
_ELEMENT = re.compile(rb"(?!(?:ORD)?_\d{1,6}>)([A-Za-z0-9_.-]{0,24})>([^<>\"'\s\\]{8,512})</")
# What is named so is no secret: its digest, its name, its place, its size.
_NO_SECRET = re.compile(
    rb"\Aiz|(?:\A|[_.-]|[a-z](?=[A-Z]))(?i:hash|sha_?\d{0,3}|md5|digest|checksum|fingerprint|integrity|public|type|name|url|uri|path"
    rb"|file|pattern|regex|re|format|prefix|suffix|template|ids?|index|idx|length|size|count|field"
    rb"|label|class|header|version|param|arn|endpoint|host|hint|map|list|set)\Z"
)
_NO_SECRET_BEFORE = re.compile(
    rb"(?:public[_-]?(?:key)?|page|sync|continuation)[_ -]?\Z", re.IGNORECASE
)
_UUID = re.compile(
    rb"[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}\Z", re.IGNORECASE
)
MIN_KEY_CHARACTERS = 16
_MIN_URL_PASSWORD = 6
MIN_BARE_CHARACTERS = 20  # without quotes most values are expressions


def find_assigned(data: bytes) -> Found:
    """Values that a name such as `api_key` is given: quoted, bare or in an XML element."""
    for index, start, end_of_word in _WORDS_SEARCH.find_matches_as_indexes(data.lower()):
        word = _WORDS[index]
        kind = "password" if word in _PASSWORDS else "key"
        for pattern, is_secret in (
            (_QUOTED, _is_quoted_secret),
            (_BARE, _is_bare_secret),
            (_ELEMENT, _is_quoted_secret),
        ):
            match = pattern.match(data, end_of_word)
            if match is not None:
                name, value = match.groups()
                if is_secret(value, kind) and _names_secret(data, start, word, name):
                    yield *match.span(2), kind
                break


def _names_secret(data: bytes, start: int, word: bytes, rest: bytes) -> bool:
    """Whether a word at `start` and the rest of the name after it mean the secret itself."""
    before = max(0, start - 16)
    if word == b"key" and not _KEY_OWNER.search(data, before, start):
        return False
    return not (_NO_SECRET.search(rest) or _NO_SECRET_BEFORE.search(data, before, start))


def _is_quoted_secret(value: bytes, kind: str) -> bool:
    if kind == "password" and len(value) < MIN_KEY_CHARACTERS:
        return _is_strong_password(value)
    return len(value) >= MIN_KEY_CHARACTERS and is_random(value)


def _is_bare_secret(value: bytes, _: str) -> bool:
    """A call, a path or a qualified name has few digits in a few places."""
    if len(value) < MIN_BARE_CHARACTERS or not is_random(value):
        return False
    return _UUID.match(value) is not None or (
        b"." not in value and b"-" not in value.strip(b"-") and len(_HAS_DIGIT.findall(value)) >= 2
    )


def _is_strong_password(value: bytes) -> bool:
    """A short one: of three classes of characters at least, and none of words."""
    return (
        sum(c.search(value) is not None for c in _CLASSES) >= 3
        and _HAS_DIGIT.search(value) is not None
        and not _PLACEHOLDER.search(value)
        and not _reads_as_words(value)
        and len(set(value)) >= 6
    )


# scheme://user:password@host and scheme://token@host
_LOGIN = re.compile(
    rb"://(?:([^\s:/@\"'`<>\\{}()\[\]]{0,64}):([^\s/@\"'`<>\\{}()\[\]]{3,128})"
    rb"|([A-Za-z0-9_-]{20,128}))@([A-Za-z0-9.-]{1,253})"
)
_WEAK = re.compile(
    rb"pass|secret|admin|guest|token|changeme|postgres|mysql|\*\*|%s|\$|%\("
    rb"|\A(?:pw|root|user|key|test|abc|foo|bar|x+)[\d!]*\Z",
    re.IGNORECASE,
)
_BEARER = re.compile(rb"(?i:bearer)[ \t]{1,4}([A-Za-z0-9._~+/=-]{20,1000})")
_BASIC = re.compile(
    rb"(?:(?i:basic)[ \t]{1,4}|(?:\"auth\"|_auth)[ \t]{0,4}[:=][ \t]{0,4}\"?)"
    rb"([A-Za-z0-9+/]{12,400}={0,2})"
)
_AZURE = re.compile(rb"(?:AccountKey|AccessKey|sig)=([A-Za-z0-9+/%]{40,100}(?:=|%3[Dd]){0,2})")


def _login(match: re.Match[bytes]) -> Found:
    user, password, token, host = match.groups()
    if b"example." in host.lower():
        return
    if token is not None:
        if is_random(token):
            yield *match.span(3), "key"
    elif password != user and len(password) >= _MIN_URL_PASSWORD and not _WEAK.search(password):
        is_chosen = not password.isalnum() or (
            not password.isdigit() and (not password.isalpha() or _is_mixed_letters(password))
        )
        if is_chosen and not _reads_as_words(password):
            yield *match.span(2), "password"


def _random(match: re.Match[bytes]) -> Found:
    if is_random(match.group(1)):
        yield *match.span(1), "key"


def _login_in_base64(match: re.Match[bytes]) -> Found:
    try:
        login = base64.b64decode(match.group(1), validate=True)
    except binascii.Error:
        return
    user, _, password = login.partition(b":")
    is_text = all(32 <= b < 127 for b in login)
    if user and password and is_text and not _WEAK.search(password):
        yield *match.span(1), "key"


# (a literal, the bytes of its pattern before it, the pattern, what reads its match)
_HEADERS: tuple[tuple[bytes, int, re.Pattern[bytes], Callable[[re.Match[bytes]], Found]], ...] = (
    (b"://", 0, _LOGIN, _login),
    (b"earer ", 1, _BEARER, _random),
    (b"asic ", 1, _BASIC, _login_in_base64),
    (b'"auth"', 0, _BASIC, _login_in_base64),
    (b"_auth", 0, _BASIC, _login_in_base64),
    (b"AccountKey=", 0, _AZURE, _random),
    (b"AccessKey=", 0, _AZURE, _random),
    (b"sig=", 0, _AZURE, _random),
)
_HEADERS_SEARCH = ahocorasick_rs.BytesAhoCorasick(
    [literal for literal, *_ in _HEADERS], ahocorasick_rs.MatchKind.LeftmostFirst
)


def find_in_headers(data: bytes) -> Found:
    """Passwords in URLs, HTTP credentials, and keys in Azure's connection strings."""
    for index, start, _ in _HEADERS_SEARCH.find_matches_as_indexes(data):
        _, num_before, pattern, read = _HEADERS[index]
        match = pattern.match(data, max(0, start - num_before))
        if match is not None:
            yield from read(match)


def find_repeats(data: bytes, found: Sequence[tuple[int, int, str]]) -> Found:
    """Every place of the values found by their context: without it they are still secrets."""
    kinds = {
        data[start:end]: kind for start, end, kind in found if end - start >= MIN_KEY_CHARACTERS
    }
    if kinds:
        values = sorted(kinds)
        search = ahocorasick_rs.BytesAhoCorasick(values, ahocorasick_rs.MatchKind.LeftmostLongest)
        for index, start, end in search.find_matches_as_indexes(data):
            yield start, end, kinds[values[index]]
