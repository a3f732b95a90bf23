"""Encodings: UTF-8 first, other ones where they can be told, and never a wrong guess for sure."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.sources.text import NotTextError, decode

CODE = "\ndef f(x):\n    return x + 1\n"


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_byte_order_marks(mark: bytes, encoding: str) -> None:
    assert decode(mark + "x = 'é€'\r\n".encode(encoding)) == "x = 'é€'\r\n"
    assert decode(mark) == ""
    with pytest.raises(NotTextError, match="binary"):
        decode(mark + "x\0".encode(encoding))
    with pytest.raises(NotTextError, match="undecodable"):
        decode(mark + b"\xff\xd8\xff")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "# by René Müller"),
        ("cp1252", "/* © 2010 Foo, it’s “quoted” – fine */"),
        ("cp1252", "# déjà vu à côté, ¿próximo año?"),
        ("cp1251", "# Проверка данных пользователя перед записью"),
        ("koi8_r", "# Возвращает сумму всех элементов списка, если файл найден"),
        ("shift_jis", "# データを検証する関数です。ファイルを開く"),
        ("gb18030", "# 检查用户数据并写入数据库,返回所有元素的总和"),
        ("big5", "# 檢查使用者資料並寫入資料庫,傳回所有元素的總和"),
        ("euc_kr", "# 사용자 데이터를 확인하고 저장합니다"),
    ],
)
def test_encodings_before_utf8(encoding: str, text: str) -> None:
    assert decode((text + CODE).encode(encoding)) == text + CODE


@pytest.mark.parametrize(
    "raw",
    [
        b"x = '\xe9'",  # one byte tells nothing
        "# şifre değiştir, kullanıcı".encode("cp1254") + b"\n" * 9,
        bytes(range(1, 256)),
    ],
)
def test_what_cannot_be_told_is_not_guessed(raw: bytes) -> None:
    with pytest.raises(NotTextError, match="undecodable"):
        decode(raw)


def test_a_stated_encoding_is_taken_at_its_word_and_only_if_it_is_one() -> None:
    raw = b"x = '\xe9'"
    assert decode(raw, "latin-1") == "x = 'é'"
    assert decode("x = 'é'".encode(), "latin-1") == "x = 'é'"
    for name in ("rot13", "zlib", "idna", "punycode", "undefined", "utf-99", "latin-1\0", ""):
        with pytest.raises(NotTextError):
            decode(raw, name)


@given(st.binary(max_size=500), st.sampled_from([None, "utf-16", "cp1252", "gb18030", "x"]))
def test_any_bytes_are_text_or_not(raw: bytes, encoding: str | None) -> None:
    try:
        text = decode(raw, encoding)
    except NotTextError as e:
        assert str(e) in ("binary", "undecodable")
    else:
        assert "\0" not in text


@given(st.text().filter(lambda t: "\0" not in t and not t.startswith("\ufeff")))
def test_utf8_is_itself(text: str) -> None:
    assert decode(text.encode("utf-8", "ignore")) == text.encode("utf-8", "ignore").decode()
