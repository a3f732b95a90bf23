"""What is found, what is left alone, and that redaction is safe on any text."""

from __future__ import annotations

import itertools
import json
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.text import secret_shapes, secrets


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

FOUND_MAIL = "ada@analytical-engine.org"
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
    ("SG." + alphanumeric(22) + "." + alphanumeric(43), "key"),
    ("SK" + "0123456789abcdef" * 2, "key"),
    ("MT" + alphanumeric(22) + "." + alphanumeric(6) + "." + alphanumeric(38), "key"),
    ("1234567890:AA" + alphanumeric(33), "key"),
    ("MIIEpAIBAAKC" + alphanumeric(300), "private_key"),
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
        "token_sha256 = '" + "0123456789abcdef" * 4 + "'",
        "<assembly publicKeyToken='b77a5c561934e089'/>",
        "tokenizer.from_pretrained('alpha/Beta2-7B-0414')",
        "newSecretKey('PBKDF2WithHmacSHA256')",
        "password='Admin'",
        "mysql://root:root@localhost/db https://user:password@host.net",
        "https://unpkg.com/@angular/core@12.3.1 chacha20-poly1305@openssh.com",
        "1.3.132.34 2.5.29.37 [23.2.4.1] sqlite 3.6.23.1",
        "if '-----BEGIN PRIVATE KEY-----' in x and '-----END PRIVATE KEY-----' in x: pass",
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


def test_a_value_named_once_is_redacted_everywhere() -> None:
    value = alphanumeric(32, 3)
    text = f'api_key = "{value}"\ncall("{value}")\n# {value[:-1]}\n'
    once = secrets.redact(text, secrets.find_spans(text))
    assert once == f'api_key = "<KEY_1>"\ncall("<KEY_1>")\n# {value[:-1]}\n'


def test_an_escape_before_a_secret_is_kept() -> None:
    r"""In the JSON of a notebook `\<EMAIL_1>` would be no escape, and the file no JSON."""
    lines = ["ada@analytical-engine.org", "ghp_" + alphanumeric(36), "93.184.216.34"]
    text = json.dumps({"source": "# \n" + "\n".join(lines) + "\té" + lines[0]})
    once = secrets.redact(text, secrets.find_spans(text))
    source = "# \n<EMAIL_1>\n<KEY_1>\n<IP_ADDRESS_1>\té<EMAIL_1>"
    assert json.loads(once) == {"source": source}


def test_a_key_over_several_strings_of_a_notebook_leaves_json() -> None:
    lines = f"key = '''{PEM}'''".splitlines(keepends=True)
    text = json.dumps({"source": lines}, indent=1)
    (span,) = secrets.find_spans(text)
    assert span["kind"] == "private_key"
    assert json.loads(secrets.redact(text, [span])) == {"source": ["key = '''<PRIVATE_KEY_1>'''"]}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("postgresql://ada:{}@db.engine.net:5432/main", "PASSWORD"),
        ("https://{}@github.com/a/b", "KEY"),
        ("Authorization: Bearer {}", "KEY"),
        ("<password>{}</password>", "PASSWORD"),
        ("curl 'https://a.net/v1?api_key={}&page=2'", "KEY"),
        ('val token: String = "{}"', "KEY"),
        ("os.getenv('SERVICE_TOKEN', '{}')", "KEY"),
        ("export DB_PASSWORD={}\n", "PASSWORD"),
    ],
)
def test_only_the_secret_of_a_line_is_replaced(text: str, kind: str) -> None:
    full = text.format(alphanumeric(32, 5))
    redacted = secrets.redact(full, secrets.find_spans(full))
    assert redacted == text.format(f"<{kind}_1>")


def test_large_hostile_texts_end() -> None:
    """Every quantifier is bounded: no shape takes quadratic time on its own beginning."""
    size = 40_000
    units = [literal.decode() for literal in secret_shapes.LITERALS]
    units += ["a", "@", "1.", "a@", "2000:", "://a:b", "token='", "password: aB1", "Bearer a"]
    units += ["-----BEGIN PRIVATE KEY-----" + "A" * 70, "\\n", "SK" + "0" * 32]
    for unit in units:
        secrets.find_spans(unit * (size // len(unit)))
        secrets.find_spans((unit + "aB1-") * (size // (len(unit) + 4)))
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
                "password=",
                'api_key: "',
                "://ada:",
                "Bearer ",
                "\\n",
                "</",
                "\U0001f511",
                "\ud83d",
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
    data = text.encode("utf-8", "surrogatepass")
    size = len(data)
    assert {s["kind"] for s in spans} <= set(secrets.KINDS)
    assert all(0 <= s["start"] < s["end"] <= size for s in spans)
    assert all(a["end"] <= b["start"] for a, b in itertools.pairwise(spans))
    for span in spans:
        data[span["start"] : span["end"]].decode("utf-8", "surrogatepass")  # whole characters
    once = secrets.redact(text, spans)
    assert secrets.redact(once, secrets.find_spans(once)) == once


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_text_around_a_secret_survives(before: str, after: str) -> None:
    """Lone surrogates and astral characters too: offsets are bytes, the rest is unchanged."""
    text = f"{before}\n{FOUND_MAIL}\n{after}"
    redacted = secrets.redact(text, secrets.find_spans(text))
    assert redacted.startswith(f"{before}\n<EMAIL_")
    assert redacted.endswith(f"_1>\n{after}")
