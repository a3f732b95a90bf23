"""What is found, what is left alone, and that redaction is safe on any text."""

from __future__ import annotations

import itertools
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.text import secrets


def alphanumeric(size: int, seed: int = 0) -> str:
    drawn = random.Random(seed)
    return "".join(drawn.choices(string.ascii_letters + string.digits, k=size - 2)) + "7q"


def kinds(text: str) -> list[str]:
    return [span["kind"] for span in secrets.find_spans(text)]


PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "\n".join(alphanumeric(64, i) for i in range(6))
    + "\n-----END RSA PRIVATE KEY-----"
)

FOUND = [
    (PEM, "private_key"),
    (PEM.replace("RSA ", ""), "private_key"),
    (PEM.replace("RSA", "OPENSSH").replace("\n", "\\n"), "private_key"),
    (PEM.split("-----END")[0].strip(), "private_key"),
    ("AKIAJ4QWERTZ3UIOPASD", "key"),
    ("ghp_" + alphanumeric(36), "key"),
    ("github_pat_" + alphanumeric(22) + "_" + alphanumeric(59), "key"),
    ("xoxb-2345678901-2345678901-" + alphanumeric(24), "key"),
    ("AIza" + alphanumeric(35), "key"),
    ("glpat-" + alphanumeric(20), "key"),
    ("sk_live_" + alphanumeric(24), "key"),
    ("hf_" + alphanumeric(34), "key"),
    ("ada.lovelace+notes@analytical-engine.org", "email"),
    ("m.mueller@uni-wien.ac.at", "email"),
    ("8.134.77.201", "ip_address"),
    ("93.184.216.34", "ip_address"),
    ("2a00:1450:4001:81b::200e", "ip_address"),
    ("2606:4700:4700:0:0:0:0:1111", "ip_address"),
]


@pytest.mark.parametrize(("secret", "kind"), FOUND)
@pytest.mark.parametrize(
    "frame", ["{}", "x = '{}'\n", "# see <{}> for ü\n", "é({}, 3)", '["{}"]', "ip={}"]
)
def test_found_whole_and_in_bytes(secret: str, kind: str, frame: str) -> None:
    text = frame.format(secret)
    (span,) = secrets.find_spans(text)
    assert span["kind"] == kind
    assert text.encode()[span["start"] : span["end"]].decode() == secret


@pytest.mark.parametrize(
    "line",
    [
        "api_key = '{}'",
        'SECRET_TOKEN: "{}"',
        '{{"password": "{}"}}',
        "client_secret => '{}'",
        'AWS_SECRET_ACCESS_KEY="{}"',
    ],
)
def test_assigned_random_strings(line: str) -> None:
    value = alphanumeric(32, 3)
    text = line.format(value)
    (span,) = secrets.find_spans(text)
    assert text[span["start"] : span["end"]] == value


@pytest.mark.parametrize(
    "text",
    [
        "someone@example.com",
        "someone@mail.example.org",
        "git@github.com:owner/name.git",
        "y = a@b.T + c@self.weight",
        "@pytest.mark.parametrize",
        "icon@2x.png",
        "127.0.0.1 10.1.2.3 192.168.1.200 172.16.0.99 0.0.0.0 255.255.255.255 169.254.1.77",
        "192.0.2.99 198.51.100.44 203.0.113.200",
        "224.0.0.251",
        "version 4.31.200.7",
        "v1.22.333.4",
        "numpy==1.26.104.2",
        "package-1.26.104.2.tar.gz",
        "1.2.3.4",
        "1.3.6.1.4.1.311",
        "300.400.500.600",
        "::1 fe80::1 2001:db8::8a2e 2001:db8:0:0:0:0:0:99",
        "std::vector 12:34:56 2024:10:12 rows[2000::2]",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "x" * 36,
        "password = 'correct-horse-battery-staple'",
        "token = 'your-token-goes-here-1234567'",
        "secret_name = 'projects/alpha/secrets/database'",
        "api_key = os.environ['API_KEY_OF_SERVICE']",
        "key = 'd41d8cd98f00b204e9800998ecf8427e'",
        "-----BEGIN PUBLIC KEY-----\n" + alphanumeric(64) + "\n-----END PUBLIC KEY-----",
    ],
)
def test_left_alone(text: str) -> None:
    assert secrets.find_spans(text) == []


def test_one_secret_has_one_number() -> None:
    text = "a@one.org b@two.org a@one.org 93.184.216.34"
    redacted = secrets.redact(text, secrets.find_spans(text))
    assert redacted == "<EMAIL_1> <EMAIL_2> <EMAIL_1> <IP_ADDRESS_1>"


def test_a_megabyte_without_a_break_is_quick() -> None:
    for text in ("a" * 10**6, "@" * 10**6, "1." * 500_000, "a@" * 500_000, "2000:" * 200_000):
        secrets.find_spans(text)
    assert kinds("-----BEGIN PRIVATE KEY-----" * 10_000) == []


TRICKY = st.lists(
    st.one_of(
        st.sampled_from([s for s, _ in FOUND]),
        st.sampled_from(
            [
                "@",
                ".",
                ":",
                "::",
                "-",
                "=",
                "'",
                '"',
                "version ",
                "token='",
                "key: ",
                "\n",
                "ü",
                "<",
            ]
        ),
        st.text(max_size=6),
        st.from_regex(rb"[0-9a-f.:@]{1,12}", fullmatch=True).map(bytes.decode),
    ),
    max_size=12,
).map("".join)


@given(TRICKY)
def test_redaction_keeps_utf8_and_is_idempotent(text: str) -> None:
    spans = secrets.find_spans(text)
    size = len(text.encode())
    assert all(0 <= s["start"] < s["end"] <= size for s in spans)
    assert all(a["end"] <= b["start"] for a, b in itertools.pairwise(spans))
    once = secrets.redact(text, spans)
    once.encode("utf-8")
    assert secrets.redact(once, secrets.find_spans(once)) == once


@given(st.text(st.characters(codec=None)))
def test_any_text_survives(text: str) -> None:
    if not secrets.find_spans(text):
        assert secrets.redact(text, []) == text


def test_planted_set() -> None:
    """300 secrets of all kinds in code: at least 95% found; 300 harmless lines: at most 1%."""
    drawn = random.Random(7)

    def some(alphabet: str, size: int) -> str:
        return "".join(drawn.choices(alphabet, k=size))

    lower, mixed = string.ascii_lowercase, string.ascii_letters + string.digits
    makers = [
        lambda: f"{some(lower, 6)}.{some(lower, 5)}@{some(lower, 8)}.{drawn.choice(['com', 'de'])}",
        lambda: ".".join(str(drawn.randint(21, 99)) for _ in range(4)),
        lambda: "ghp_" + some(mixed, 36),
        lambda: "AKIA" + some(string.ascii_uppercase + "234567", 16),
        lambda: "xoxp-" + some(string.digits, 12) + "-" + some(mixed, 24),
        lambda: "AIza" + some(mixed + "_-", 34) + "x",
    ]
    planted = [makers[i % len(makers)]() for i in range(300)]
    num_found = 0
    for secret in planted:
        text = f"def f():\n    value = '{secret}'\n    return value\n"
        spans = secrets.find_spans(text)
        num_found += any(text[s["start"] : s["end"]] == secret for s in spans)
    harmless = [
        f"{some(lower, 8)}_{i} = {some(lower, 4)}.{some(lower, 5)}({some(string.digits, 5)}, "
        f"'{some(lower, 12)}', 0x{some('0123456789abcdef', 16)}, {i}.{i}.{i % 7})\n"
        for i in range(300)
    ]
    num_false = sum(bool(secrets.find_spans(line)) for line in harmless)
    print(f"secrets: {num_found} of 300 found, {num_false} of 300 harmless lines flagged")
    assert num_found >= 285
    assert num_false <= 3
