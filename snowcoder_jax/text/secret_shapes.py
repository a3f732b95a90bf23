"""Keys and tokens that their makers gave a shape of their own, and private keys.

The shapes are those that their makers publish; coverage was compared with the rule lists of
gitleaks and detect-secrets and with the PII work of StarCoder. Each is looked at only where a
literal that it must hold occurs, so that a hundred of them cost one search.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import ahocorasick_rs

from snowcoder_jax.text.secret_values import is_random

Found = Iterator[tuple[int, int, str]]  # start, end, kind

# A letter before a token can be the end of an escape: the n of "\nghp_...".
_LEFT = rb"(?:(?<![A-Za-z0-9_])|(?<=\\[nrt]))"
_RIGHT = rb"(?![A-Za-z0-9_])"


class Shape(NamedTuple):
    """What stands at a literal: `pattern` from its start on, `before` what must end there.

    Group 1, where there is one, is the secret. With `guarded` what follows the literal must look
    random too, since words can have the shape.
    """

    literals: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    before: re.Pattern[bytes] | None = None
    guarded: bool = False


def _shape(literals: str, body: bytes, *, guarded: bool = False) -> Shape:
    """`literals`, parted by spaces, one of which begins the token."""
    split = tuple(literal.encode() for literal in literals.split())
    either = b"|".join(map(re.escape, split))
    return Shape(split, re.compile(_LEFT + b"(?:" + either + b")" + body + _RIGHT), None, guarded)


def _around(literal: bytes, before: bytes, body: bytes) -> Shape:
    return Shape((literal,), re.compile(body + _RIGHT), re.compile(_LEFT + before + rb"\Z"))


_W = rb"[A-Za-z0-9_-]"
_SHAPES = (
    _shape("AKIA ASIA ABIA ACCA", rb"[A-Z2-7]{16}"),  # Amazon access key ids
    _shape("ABSK", rb"[A-Za-z0-9+/]{109,269}={0,2}"),
    _shape("LTAI", rb"[A-Za-z0-9]{20}"),  # Alibaba
    _shape("AKID", rb"[A-Za-z0-9]{32}"),  # Tencent
    _shape("AIza", rb"[A-Za-z0-9_-]{35}"),  # Google: API key, client secret, tokens
    _shape("GOCSPX-", _W + rb"{28}"),
    _shape("ya29.", _W + rb"{20,400}"),
    _shape("1//0", _W + rb"{40,200}"),
    _around(b"Q~", rb"[A-Za-z0-9_~.]{3}\d", rb"Q~[A-Za-z0-9_~.-]{31,34}"),  # Entra
    _shape("dapi", rb"[a-f0-9]{32}(?:-\d)?"),  # Databricks
    _shape("dop_v1_ doo_v1_ dor_v1_", rb"[a-f0-9]{64}"),  # DigitalOcean
    _shape("HRKU-", _W + rb"{36,60}"),  # Heroku
    _shape("hvs. hvb.", _W + rb"{24,300}"),  # HashiCorp
    _around(b".atlasv1.", rb"[A-Za-z0-9]{14}", rb"\.atlasv1\.[A-Za-z0-9_=-]{60,70}"),
    _shape("pul-", rb"[a-f0-9]{40}"),
    _shape("dp.pt. dp.st.", rb"(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,44}"),
    _shape("pscale_tkn_ pscale_oauth_ pscale_pw_", rb"[\w=.-]{32,64}"),
    _shape("ghp_ gho_ ghu_ ghs_ ghr_", rb"[A-Za-z0-9]{36,251}"),
    _shape("github_pat_", rb"[A-Za-z0-9_]{22,255}", guarded=True),
    _shape("glpat- gldt- glft- glrt- glptt- gloas- glsoat- glagent- glimt- glcbt- glffct-",
           rb"[A-Za-z0-9_.-]{20,300}"),
    _shape("GR1348941", _W + rb"{20}"),
    _shape("ATATT3 ATCTT3 ATBB", rb"[A-Za-z0-9_=-]{28,250}"),  # Atlassian
    _shape("npm_", rb"[A-Za-z0-9]{36}"),
    _shape("pypi-AgE", _W + rb"{40,1000}"),
    _shape("rubygems_", rb"[a-f0-9]{48}"),
    _shape("oy2", rb"[a-z0-9]{43}"),  # NuGet
    _shape("dckr_pat_", _W + rb"{27}"),
    _shape("xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs- xoxe.xoxb- xoxe.xoxp-",
           rb"(?=[A-Za-z-]{0,40}\d)[A-Za-z0-9-]{10,250}"),  # Slack
    _shape("xapp-", rb"\d-[A-Z0-9]{8,20}-\d{8,20}-[A-Za-z0-9]{32,80}"),
    _shape("hooks.slack.com", rb"/(?:services|workflows|triggers)/[A-Za-z0-9/]{20,80}"),
    _shape("discord.com/api/webhooks/ discordapp.com/api/webhooks/",
           rb"\d{17,20}/" + _W + rb"{60,80}"),
    _shape("hooks.zapier.com/hooks/catch/", rb"\d{5,12}/[A-Za-z0-9]{5,20}"),
    _around(b".webhook.office.com/", rb"[a-z0-9-]{1,40}",
            rb"\.webhook\.office\.com/webhookb2/[\w@-]{70,90}/IncomingWebhook/[\w/-]{60,90}"),
    _around(b":AA", rb"\d{8,10}", rb":AA" + _W + rb"{32,33}"),  # Telegram
    _shape("sk_live_ rk_live_ sk_test_ rk_test_", rb"[A-Za-z0-9]{16,250}"),  # Stripe
    _shape("whsec_", rb"[A-Za-z0-9+/]{32,64}={0,2}"),
    _shape("sq0atp- sq0csp-", _W + rb"{22,60}"),  # Square
    _shape("EAAA EAAB EAAC EAAG EAAM", rb"[A-Za-z0-9_-]{56,300}"),  # Square, Facebook
    _shape("shpat_ shpca_ shppa_ shpss_", rb"[a-fA-F0-9]{32}"),  # Shopify
    _shape("EZAK EZTK", rb"[A-Za-z0-9]{54}"),
    _shape("shippo_live_ shippo_test_", rb"[a-f0-9]{40}"),
    _shape("access_token$production$", rb"[a-z0-9]{16}\$[a-f0-9]{32}"),  # PayPal, Braintree
    _shape("SG.", rb"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),  # SendGrid
    _shape("xkeysib-", rb"[a-f0-9]{64}-[A-Za-z0-9]{16}"),  # Brevo
    _shape("key-", rb"[a-f0-9]{32}"),  # Mailgun
    _shape("sk-", _W + rb"{32,250}", guarded=True),  # OpenAI, Anthropic and others
    _shape("hf_", rb"[A-Za-z0-9]{34,40}", guarded=True),
    _shape("api_org_", rb"[A-Za-z]{34}", guarded=True),
    _shape("gsk_", rb"[A-Za-z0-9]{52}"),  # Groq
    _shape("pplx-", rb"[A-Za-z0-9]{48,56}"),
    _shape("xai-", rb"[A-Za-z0-9]{80}"),
    _shape("r8_", rb"[A-Za-z0-9]{37}"),  # Replicate
    _shape("lsv2_pt_ lsv2_sk_", rb"[a-f0-9]{32}_[a-f0-9]{10}"),  # LangSmith
    _shape("pcsk_", rb"[A-Za-z0-9_]{50,90}", guarded=True),  # Pinecone
    _shape("lin_api_", rb"[A-Za-z0-9]{40}"),
    _shape("ntn_", rb"\d{11}[A-Za-z0-9]{35}"),  # Notion
    _shape("secret_", rb"[A-Za-z0-9]{43}", guarded=True),
    _shape("figd_", _W + rb"{40,60}"),
    _shape("PMAK-", rb"[a-f0-9]{24}-[a-f0-9]{34}"),  # Postman
    _shape("glsa_", rb"[A-Za-z0-9]{32}_[a-fA-F0-9]{8}"),  # Grafana
    _shape("glc_", rb"[A-Za-z0-9+/]{32,400}={0,3}", guarded=True),
    _shape("NRAK- NRII-", rb"[A-Za-z0-9-]{27,32}"),  # New Relic
    _shape("dt0c01.", rb"[A-Za-z0-9]{24}\.[A-Za-z0-9]{64}"),  # Dynatrace
    _shape("sntryu_", rb"[a-f0-9]{64}"),  # Sentry
    _shape("sntrys_eyJ", rb"[A-Za-z0-9+/=_]{40,500}"),
    _shape("AGE-SECRET-KEY-1", rb"[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    _shape("ops_eyJ", rb"[A-Za-z0-9+/]{250,2000}={0,3}"),  # 1Password
    _shape("p8e-", rb"[A-Za-z0-9]{32}"),  # Adobe
    _shape("AAAAAAAAAAAAAAAAAAAAA", rb"(?=\w{0,80}%)[A-Za-z0-9%]{60,120}"),  # Twitter bearer
    Shape((b"eyJ",), re.compile(
        rb"(?:(?<![\w-])|(?<=\\[nrt]))eyJ[A-Za-z0-9_-]{10,2000}+\.eyJ[A-Za-z0-9_-]{10,4000}+"
        rb"\.[A-Za-z0-9_-]{20,1000}" + _RIGHT)),  # a signed JSON web token
)  # fmt: skip
_SHAPES_OF = {literal: shape for shape in _SHAPES for literal in shape.literals}
_KEY_LITERALS = (b"PRIVATE KEY", b"IBAAK", b"IBADAN", b"GByqGSM49AgEG", b"PuTTY-User")
LITERALS = (*_SHAPES_OF, *_KEY_LITERALS)
# A DFA, which is not the default for so many literals, is three times as fast.
_SEARCH = ahocorasick_rs.BytesAhoCorasick(
    list(LITERALS), implementation=ahocorasick_rs.Implementation.DFA
)

# Shapes without a literal: hex digits after two capitals (Twilio) or before `-us1` (Mailchimp),
# and the three parts of a Discord token, whose first is a number in base64. A fast search for
# the run comes first, in a text whose characters are folded to their class.
_HEX_AS_ZERO = bytes.maketrans(b"123456789abcdef", b"0" * 15)
_HEX_RUN = b"0" * 32
_AROUND_HEX = tuple(
    (literal, re.compile(_LEFT + shape + _RIGHT))
    for literal, shape in (
        (b"SK" + _HEX_RUN, rb"SK[a-f0-9]{32}"),
        (b"AC" + _HEX_RUN, rb"AC[a-f0-9]{32}"),
        (_HEX_RUN + b"-us", rb"[a-f0-9]{32}-us\d{1,2}"),
    )
)
_WORD_AS_ZERO = bytes(
    ord("0") if chr(b) in "-_" or (b < 128 and chr(b).isalnum()) else b for b in range(256)
)
_DISCORD_RUN = b"0" * 23 + b".000000." + b"0" * 27
_DISCORD = re.compile(
    _LEFT + rb"[MNO][A-Za-z\d_-]{22,28}\.[A-Za-z\d_-]{6}\.[A-Za-z\d_-]{27,40}" + _RIGHT
)

_MIN_DISTINCT = 10  # characters; rows of one letter and patterns are no keys


def find_shaped(data: bytes) -> Found:
    """Keys of a known shape, with overlaps where two shapes fit."""
    key_literals = set()
    # Overlapping, since one literal may end inside another ("xoxe.xoxb-").
    for index, start, end_of_literal in _SEARCH.find_matches_as_indexes(data, overlapping=True):
        literal = LITERALS[index]
        if literal in _KEY_LITERALS:
            key_literals.add(literal)
            continue
        shape = _SHAPES_OF[literal]
        match = shape.pattern.match(data, start)
        if match is None:
            continue
        token_start, token_end = match.span()
        if shape.before is not None:
            before = shape.before.search(data, max(0, start - 64), start)
            if before is None:
                continue
            token_start = before.start()
        if not _is_no_example(data[token_start:token_end]):
            continue
        if not shape.guarded or is_random(data[end_of_literal:token_end]):
            yield token_start, token_end, "key"
    yield from _find_private_keys(data, key_literals)
    folded = data.translate(_HEX_AS_ZERO)
    if _HEX_RUN in folded:
        for literal, pattern in _AROUND_HEX:
            yield from _matches_at(literal, folded, pattern, data)
    yield from _matches_at(_DISCORD_RUN, data.translate(_WORD_AS_ZERO), _DISCORD, data)


def _matches_at(literal: bytes, folded: bytes, pattern: re.Pattern[bytes], data: bytes) -> Found:
    """Matches of `pattern` in the text that begin at most 6 bytes before a literal of its fold."""
    start = folded.find(literal)
    while start >= 0:
        match = pattern.search(data, max(0, start - 6), start + 100)
        if match is not None and _is_no_example(match.group()):
            yield *match.span(), "key"
        start = folded.find(literal, start + len(literal))


def _is_no_example(token: bytes) -> bool:
    """Keys of a maker's own documentation say so."""
    return b"EXAMPLE" not in token and len(set(token)) >= _MIN_DISTINCT


_PEM_BEGIN = rb"-{4,5} ?BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
_PEM_END = rb"-{4,5} ?END (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
_PEM = re.compile(_PEM_BEGIN + rb"((?:[^-]|-(?!---)){64,20000}?)" + _PEM_END)
# Without its end: the marker and the lines of base64 after it.
_PEM_OPEN = re.compile(_PEM_BEGIN + rb"(?:[\s\"'+,\\nr]{0,40}[A-Za-z0-9+/=]{16,})++")
# What stands between and around the base64 of a key that is quoted in a program, and the headers
# of an encrypted one.
_PEM_JOINTS = re.compile(rb"\\[nrt]|[\s\"'`+,;\\.<>#*/()]|[A-Z][A-Za-z-]{2,16}: [^\n\\]{1,80}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/=]{64,}")
# Keys in base64 that lost their markers: a DER sequence that begins with version 0 and an RSA
# modulus (PKCS 1), or with version 0 and the identifier of RSA or of elliptic curves (PKCS 8).
_BARE_KEY = re.compile(
    rb"(?:(?<![A-Za-z0-9+/])|(?<=\\[nrt]))MI(?:I[A-Za-z0-9+/]{3}(?:IBAAK[BC]|IBADANBgkqhkiG9w0BAQEFAA)"
    rb"|G[A-Za-z0-9+/]AgEAMB[A-Z]GByqGSM49AgEG)(?:[\s\"'+,\\nr]{0,40}[A-Za-z0-9+/=]{16,})++"
)
_PUTTY = re.compile(
    rb"PuTTY-User-Key-File-\d:(?:(?!PuTTY-).){1,8000}?Private-MAC: [a-f0-9]{40,64}", re.DOTALL
)


def _find_private_keys(data: bytes, literals: set[bytes]) -> Found:
    """Private keys in PEM (its marks quoted in a program are none), bare base64 and PuTTY's."""
    if b"PRIVATE KEY" in literals:
        for match in _PEM.finditer(data):
            if _BASE64.fullmatch(_PEM_JOINTS.sub(b"", match.group(1))):
                yield *match.span(), "private_key"
        for match in _PEM_OPEN.finditer(data):
            yield *match.span(), "private_key"
    if not literals.isdisjoint((b"IBAAK", b"IBADAN", b"GByqGSM49AgEG")):
        for match in _BARE_KEY.finditer(data):
            yield *match.span(), "private_key"
    if b"PuTTY-User" in literals:
        for match in _PUTTY.finditer(data):
            yield *match.span(), "private_key"
