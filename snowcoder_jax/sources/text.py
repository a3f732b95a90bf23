"""The bytes of a file -> its text: UTF-8 first, else the encoding it was written in."""

from __future__ import annotations

import codecs
import contextlib
import re

import charset_normalizer

# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# In use for source code before UTF-8. Many more would only be mistaken for one of these.
_ENCODINGS = ["cp1251", "koi8_r", "cp932", "euc_jp", "gb18030", "big5", "cp949", "cp1250", "cp1253"]
_MIN_HIGH_BYTES = 16
_MAX_MESS_PERCENT = 5.0
_MAX_OTHER_SHARE = 0.05

_HIGH = re.compile(rb"[\x80-\xff]")
# Words of western Europe in cp1252: at most two accented letters in a row, beside plain ones, or
# the French "a", or Spanish marks. The letters that only Icelandic has are left out: they are
# those of Turkish in its own encoding.
_LETTER = rb"[\xc0-\xcf\xd1-\xd6\xd8-\xdc\xdf-\xef\xf1-\xf6\xf8-\xfc\xff]"
_WESTERN_WORD = re.compile(
    rb"[A-Za-z]" + _LETTER + rb"{1,2}"
    rb"|(?<![\x80-\xff])" + _LETTER + rb"{1,2}(?=[A-Za-z])"
    rb"|(?<=[ \t])\xe0(?=[ \t])|[\xa1\xbf](?=[A-Za-z])"
)  # fmt: skip
# Signs that stand alone, and are the same in all of Windows' encodings: quotes where quotes may
# be, dashes, copyright, degree and the like.
_SIGN = re.compile(
    rb"(?<![\x80-\xff])(?:[\x85\x96\x97\xa7\xa9\xab\xae\xb0\xb1\xb5\xb7\xbb]"
    rb"|(?<![A-Za-z])[\x91\x93]|\x92|\x94(?![A-Za-z]))(?![\x80-\xff])"
)
# In Turkish these are in every line; in central Europe hardly any word has one.
_TURKISH = re.compile(rb"[\xf0\xfe]")
# What a source may call an encoding: families of character sets, and no other codecs of Python.
_STATED = re.compile(r"(?:utf|iso|cp|windows|koi8|shift|euc|gb|big5|latin|mac|ascii)", re.I)


class NotTextError(ValueError):
    """The bytes are not text; the message is the ledger's reason: "binary" or "undecodable"."""


def decode(raw: bytes, encoding: str | None = None) -> str:
    """The text of a file, without its byte-order mark.

    Args:
      encoding: what the source says the bytes are in; taken at its word where they are not UTF-8.

    Raises:
      NotTextError: it holds NUL, or it is no UTF-8 and cannot be told to be in another encoding.
    """
    for mark, name in _MARKS:
        if raw.startswith(mark):
            try:
                text = raw[len(mark) :].decode(name)
            except UnicodeDecodeError:
                raise NotTextError("undecodable") from None
            break
    else:
        if b"\0" in raw:
            raise NotTextError("binary")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            text = _in_other_encoding(raw, encoding)
    if "\0" in text:
        raise NotTextError("binary")
    return text


def _in_other_encoding(raw: bytes, encoding: str | None) -> str:
    if encoding is not None and _STATED.match(encoding):
        with contextlib.suppress(LookupError, ValueError):
            return raw.decode(encoding)
    num_high = len(_HIGH.findall(raw))
    num_western = len(_SIGN.findall(raw)) + sum(
        len(_HIGH.findall(word)) for word in _WESTERN_WORD.findall(raw)
    )
    if num_high - num_western <= _MAX_OTHER_SHARE * num_high:
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode("cp1252")
    if num_high < _MIN_HIGH_BYTES:
        raise NotTextError("undecodable")
    found = list(charset_normalizer.from_bytes(raw, cp_isolation=_ENCODINGS))
    # A guess counts where the text is clean and no other guess reads more like a language.
    if not found or found[0].percent_chaos > _MAX_MESS_PERCENT:
        raise NotTextError("undecodable")
    if found[0].encoding == "cp1250" and _TURKISH.search(raw):
        raise NotTextError("undecodable")
    for other in found[1:]:
        is_clean = other.percent_chaos <= _MAX_MESS_PERCENT
        if is_clean and other.percent_coherence > found[0].percent_coherence:
            raise NotTextError("undecodable")
    return str(found[0])
