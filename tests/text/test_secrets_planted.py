"""Recall and precision on planted secrets and hard negatives, drawn at run time.

No secret stands in this file: `<hex 40>` and the like are filled with drawn characters, so that
scanners of secrets have nothing to find here.
"""

from __future__ import annotations

import base64
import json
import random
import re
import string
import uuid
from collections import Counter

import pytest

from snowcoder_jax.languages import NOTEBOOK
from snowcoder_jax.text import secrets

CASES_A_KIND = 12
ALNUM = string.ascii_letters + string.digits
ALPHABETS = {
    "hex": "0123456789abcdef",
    "digits": string.digits,
    "lower": string.ascii_lowercase,
    "upper": string.ascii_uppercase,
    "base32": string.ascii_uppercase + "234567",
    "base36": string.ascii_lowercase + string.digits,
    "bech32": "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
    "alnum": ALNUM,
    "url": ALNUM + "_-",  # as in base64 for URLs
    "std": ALNUM + "+/",
}
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor")
FIELD = re.compile(r"<([a-z0-9]+)(?: (\d+))?(?: ([A-Z ]+))?>")


class Draw:
    """Fills templates from one seeded generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def one(self, choices: tuple[str, ...]) -> str:
        return self.fill(self.random.choice(choices))

    def fill(self, template: str) -> str:
        return FIELD.sub(lambda m: self._field(m[1], int(m[2] or 0), m[3]), template)

    def of(self, alphabet: str, size: int) -> str:
        """Does not end in a sign, which no boundary of a word would include."""
        return "".join(self.random.choices(alphabet, k=size - 1)) + self.random.choice(
            alphabet.replace("_-", "").replace("+/", "")
        )

    def _field(self, name: str, size: int, label: str | None) -> str:
        if name in ALPHABETS:
            return self.of(ALPHABETS[name], size)
        drawn = self.random
        if name == "bytes":
            return base64.b64encode(drawn.randbytes(size)).decode()
        if name == "word":
            return drawn.choice(WORDS)
        if name == "uuid":
            return str(uuid.UUID(int=drawn.getrandbits(128), version=4))
        if name == "octet":
            return str(drawn.randint(20, 254))
        if name == "public":  # first octets of public networks
            return str(drawn.choice((23, 34, 45, 52, 81, 93, 104, 151, 163, 185, 203)))
        if name == "snowflake":
            return base64.b64encode(self.of(string.digits, 18).encode()).decode()
        if name == "login":
            return base64.b64encode(f"ada:{self.of(ALNUM, 12)}".encode()).decode()
        if name == "claims":
            claims = json.dumps({"sub": self.of(string.digits, 10), "alg": "HS256"})
            return base64.urlsafe_b64encode(claims.encode()).decode().rstrip("=")
        if name == "strong":
            parts = self.fill("<lower 4><upper 3><digits 3>") + "".join(drawn.choices("!#%^*", k=2))
            return "".join(drawn.sample(parts, len(parts)))
        assert name == "pem", name
        body = base64.b64encode(drawn.randbytes(size)).decode()
        lines = [body[i : i + 64] for i in range(0, len(body), 64)]
        return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----"])


# Found anywhere, by their shape.
SHAPED = {
    "AWS id": ("AKIA<base32 16>", "ASIA<base32 16>"),
    "GitHub": ("ghp_<alnum 36>", "gho_<alnum 36>", "ghu_<alnum 36>", "ghs_<alnum 36>"),
    "GitHub fine-grained": ("github_pat_<alnum 22>_<alnum 59>",),
    "GitLab": ("glpat-<url 20>", "gldt-<url 20>", "glrt-<url 20>", "glptt-<hex 40>"),
    "Slack": ("xoxb-<digits 12>-<digits 12>-<alnum 24>", "xoxp-<digits 12>-<alnum 32>"),
    "Slack webhook": ("hooks.slack.com/services/T<upper 8>/B<upper 8>/<alnum 24>",),
    "Discord webhook": ("discord.com/api/webhooks/<digits 18>/<url 68>",),
    "Discord bot": ("<snowflake>.<url 6>.<url 38>",),
    "Telegram": ("1<digits 9>:AA<url 33>",),
    "Google": ("AIza<url 35>", "ya29.<url 80>", "GOCSPX-<url 28>"),
    "Stripe": ("sk_live_<alnum 24>", "rk_live_<alnum 24>", "sk_test_<alnum 24>"),
    "Stripe webhook": ("whsec_<alnum 32>",),
    "Square": ("sq0atp-<url 22>",),
    "Shopify": ("shpat_<hex 32>", "shpca_<hex 32>", "shppa_<hex 32>", "shpss_<hex 32>"),
    "Twilio": ("SK<hex 32>", "AC<hex 32>"),
    "SendGrid": ("SG.<url 22>.<url 43>",),
    "Mailgun": ("key-<hex 32>",),
    "Mailchimp": ("<hex 32>-us1<digits 1>",),
    "Brevo": ("xkeysib-<hex 64>-<alnum 16>",),
    "npm": ("npm_<alnum 36>",),
    "PyPI": ("pypi-AgE<url 160>",),
    "RubyGems": ("rubygems_<hex 48>",),
    "NuGet": ("oy2<base36 43>",),
    "Docker": ("dckr_pat_<url 27>",),
    "OpenAI": ("sk-<alnum 48>", "sk-proj-<url 48>"),
    "Anthropic": ("sk-ant-api03-<url 93>AA",),
    "Hugging Face": ("hf_<alnum 34>",),
    "Groq": ("gsk_<alnum 52>",),
    "Replicate": ("r8_<alnum 37>",),
    "DigitalOcean": ("dop_v1_<hex 64>", "doo_v1_<hex 64>"),
    "Databricks": ("dapi<hex 32>",),
    "HashiCorp": ("hvs.<url 90>", "<alnum 14>.atlasv1.<url 66>"),
    "Heroku": ("HRKU-AA<url 58>",),
    "Atlassian": ("ATATT3xFfGF0<url 180>",),
    "Linear": ("lin_api_<alnum 40>",),
    "Notion": ("ntn_<digits 11><alnum 35>",),
    "Postman": ("PMAK-<hex 24>-<hex 34>",),
    "Grafana": ("glsa_<alnum 32>_<hex 8>",),
    "Azure Entra": ("<alnum 3><digits 1>Q~<url 33>",),
    "Alibaba": ("LTAI<alnum 20>",),
    "age": ("AGE-SECRET-KEY-1<bech32 58>",),
    "JWT": ("<claims>.<claims>.<url 43>",),
    "RSA key": ("<pem 600 RSA PRIVATE KEY>",),
    "PKCS 8 key": ("<pem 138 PRIVATE KEY>",),
    "OpenSSH key": ("<pem 300 OPENSSH PRIVATE KEY>",),
    "PGP key": ("<pem 900 PGP PRIVATE KEY BLOCK>",),
    "key without its marks": ("MIIEpAIBAAKC<std 800>",),
    "e-mail": (
        "<word>.<lower 6>@<lower 7>.com",
        "<word>@<lower 7>.co.uk",
        "<lower 3>+<word>@<lower 7>.de",
        "<word>_<digits 2>@cs.<lower 7>.edu",
    ),
    "IPv4": ("<public>.<octet>.<octet>.<octet>",),
    "IPv6": ("2a0<hex 1>:1<hex 3>:1<hex 3>:1<hex 3>::<hex 2>", "2606:4700:<hex 4>::1<hex 3>"),
}
FRAMES = (
    "value = '{}'\n",
    'connect("{}");\n',
    "    - {}\n",
    "# see {} for more\n",
    "/* {} */ int main(void) {{ return 0; }}\n",
    'print("one\\n{}\\ttwo")\n',
    "INSERT INTO t VALUES (1, '{}');\n",
    '"source": ["x = \\"{}\\"\\n"]\n',
    "é ü 漢字 {}\n",
    "name={};other=1\n",
)

# Found by what they are called.
ASSIGNMENTS = (
    'API_KEY = "{}"\n',
    "const apiKey = '{}';\n",
    'private static final String CLIENT_SECRET = "{}";\n',
    'val authToken: String = "{}"\n',
    'let token: &str = "{}";\n',
    'os.Setenv("SERVICE_TOKEN", "{}")\n',
    "export ACCESS_TOKEN={}\n",
    "  api_key: {}\n",
    "define('AUTH_KEY', '{}');\n",
    'config.secret_token = "{}"\n',
    'client.setApiKey("{}");\n',
    '<add key="ApiKey" value="{}" />\n',
    "<clientSecret>{}</clientSecret>\n",
    '"source": ["api_key = \\"{}\\"\\n"]\n',
    'req.Header.Set("X-Api-Key", "{}")\n',
    'const token = process.env.TOKEN || "{}";\n',
    "https://api.fjord.com/v1/items?api_key={}&page=2\n",
    'curl -H "Authorization: Bearer {}" https://api.fjord.com\n',
    "//registry.npmjs.org/:_authToken={}\n",
)
AWS = (
    "AWS_SECRET_ACCESS_KEY={}\n",
    "aws_secret_access_key = {}\n",
    '    secretAccessKey: "{}",\n',
    "$config['aws']['secret_key'] = '{}';\n",
    'new BasicAWSCredentials(id, "{}");\n',
)
PASSWORDS = (
    "DB_PASSWORD = '{}'\n",
    '"password": "{}",\n',
    'conn.setPassword("{}");\n',
    'smtp_pass => "{}",\n',
    'string pwd = "{}";\n',
)
URLS = (
    "postgresql://ada:{}@db.fjord.net:5432/main\n",
    'mongodb+srv://ada:{}@cluster0.fjord.mongodb.net/app"\n',
    "git clone https://ada:{}@git.fjord.org/app.git\n",
    "redis://:{}@cache.fjord.net:6379/0\n",
    'amqp.Dial("amqp://ada:{}@mq.fjord.net/")\n',
)
LOGINS = ("Authorization: Basic {}\n", '{{"auths": {{"registry": {{"auth": "{}"}}}}}}\n')
AZURE = (
    '"AccountName=a;AccountKey={};EndpointSuffix=x"\n',
    "Endpoint=sb://a/;SharedAccessKey={}\n",
)
NAMED = {
    "AWS secret": (AWS, ("<std 40>",)),
    "letters and digits": (ASSIGNMENTS, ("<alnum 24>", "<alnum 32>", "<alnum 40>")),
    "small letters and digits": (ASSIGNMENTS, ("<base36 32>",)),
    "hexadecimal": (ASSIGNMENTS, ("<hex 32>", "<hex 40>", "<hex 64>")),
    "base64": (ASSIGNMENTS, ("<bytes 33>",)),
    "UUID": (ASSIGNMENTS, ("<uuid>",)),
    "password": (PASSWORDS, ("<strong>",)),
    "password in a URL": (URLS, ("<alnum 14>",)),
    "HTTP login": (LOGINS, ("<login>",)),
    "Azure storage": (AZURE, ("<bytes 64>",)),
}

HARMLESS = {
    "UUID": ('id: "<uuid>"', "[Guid(<uuid>)]", "urn:uuid:<uuid>"),
    "commit": ("commit <hex 40>", 'rev = "<hex 40>"', "uses: actions/checkout@<hex 40>"),
    "lock file": (
        '"integrity": "sha512-<bytes 64>"',
        "    --hash=sha256:<hex 64>",
        "github.com/a/b v1.2.3 h1:<bytes 32>",
        'checksum = "<hex 64>"',
    ),
    "digest": (
        'md5 = "<hex 32>"',
        'assertEqual(hash, "<hex 40>")',
        "image: app@sha256:<hex 64>",
        'token_sha256 = "<hex 64>"',
    ),
    "base64 data": ('data = "<bytes 90>"', "url(data:image/png;base64,<bytes 60>)"),
    "version": (
        "1.2.3.4",
        "version <octet>.0.<octet>.1",
        'Version="<octet>.31.77.200"',
        "lib==<octet>.26.104.2",
        "setup-<octet>.41.77.3.zip",
        "Chrome/81.33.44.138",
        "sqlite 3.<octet>.1.1",
    ),
    "private IP": (
        "10.<octet>.<octet>.77",
        "192.168.1.<octet>",
        "127.0.0.1 0.0.0.0 255.255.255.0",
        "172.20.33.<octet>",
        "169.254.169.254",
        "fe80::1ff:fe23:4567:890a ::1",
    ),
    "documentation IP": (
        "192.0.2.<octet>",
        "198.51.100.<octet>",
        "203.0.113.<octet>",
        "2001:db8:85a3::8a2e:370:7334",
    ),
    "object identifier": ("1.3.132.34", "2.5.29.37", "1.2.840.113549.1.1.1", "[23.2.4.1] ctors"),
    "example mail": (
        "<word>@example.com",
        "<word>@mail.example.net",
        "<word>@test.com",
        "<word>@yourdomain.com",
        "<word>@foo.bar",
        "<word>@localhost",
        "noreply@<word>.com",
    ),
    "no mail": (
        "git@github.com:owner/<word>.git",
        "icon@2x.png",
        "@app.route",
        "@angular/core@12.3.1",
        "W@self.h.to(device)",
        "chacha20-poly1305@openssh.com",
        "https://unpkg.com/react@17.0.2/umd",
    ),
    "placeholder": (
        'api_key = "YOUR_API_KEY_HERE_1234"',
        "token = 'your-token-goes-here-<digits 4>'",
        'password = "changeme123!"',
        'API_KEY: "${SERVICE_API_KEY_2}"',
        'secret = "xxxxxxxxxxxxxxxxxxxxxxxx1"',
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "AKIA<base32 9>EXAMPLE",
        'password: "********"',
        "postgres://user:password@localhost/db mysql://root:root@db/app",
    ),
    "code": (
        "token = self.tokenizer.convert_tokens_to_ids(text2)",
        "api_key = os.environ['API_KEY_OF_SERVICE_2']",
        "password = getpass.getpass('Password: ')",
        "secret = config.get('client.secret.v2', None)",
        "const token = await getTokenFromStorage2(userId);",
        "primary_key=models.AutoField(id)",
        "key-<word><word><word><word>-panel-2",
        "sk-<word>-<word>-loading-indicator-wrapper-2",
    ),
    "name": (
        'secret_name = "projects/<word>/secrets/<word>-v2"',
        'token_url = "https://auth.<word>.com/oauth2/v2/token"',
        'tokenizer.from_pretrained("<word>/<word>-2-7B-chat")',
        'token_type = "urn:ietf:params:oauth:token-type:jwt2"',
        'passwordFile = "/etc/<word>/x86_64/passwd2"',
        'publicKeyToken="<hex 16>"',
        'SecretKeyFactory.getInstance("PBKDF2WithHmacSHA256")',
        "cache_key = 'user:<digits 6>:profile'",
    ),
    "identifier": (
        "com.<word>.<word>.internal.AbstractHandlerFactoryBean2",
        "<word>_<word>_<word>_configuration_manager_v2",
        "org/apache/commons/lang3/StringEscapeUtils$Entity2",
    ),
    "URL": (
        "https://docs.<word>.com/a/b/<lower 12>/<digits 9>?page=3#top",
        "https://<word>.com:8443/path@2",
        "http://[::1]:80/<word>",
        "https://storage.<word>.com/<hex 32>.tar.gz",
    ),
    "colour or number": (
        "color: #<hex 6>;",
        "0x<hex 16>, 0x<hex 8>",
        "<digits 4>-<digits 4>-<digits 4>",
        "3.14159265358<digits 9>",
        "<hex 2>:<hex 2>:<hex 2>:aa:bb:cc",
        "M12.5 3.2.7.41.96.68",
    ),
    "certificate": (
        "<pem 300 CERTIFICATE>",
        "<pem 200 PUBLIC KEY>",
        'if b"-----BEGIN PRIVATE KEY-----" in x and b"-----END PRIVATE KEY-----" in x:',
    ),
    "pattern": (
        "ghp_[A-Za-z0-9]{36}",
        r"AKIA[0-9A-Z]{16}",
        r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}",
        r"[\w.]+@[\w.]+\.\w+",
    ),
}


def planted(draw: Draw) -> list[tuple[str, str, str]]:
    """Kind, frame and secret of every planted case."""
    cases = [
        (name, draw.random.choice(FRAMES), draw.one(shapes))
        for name, shapes in SHAPED.items()
        for _ in range(CASES_A_KIND)
    ]
    return cases + [
        (name, draw.random.choice(frames), draw.one(values))
        for name, (frames, values) in NAMED.items()
        for _ in range(2 * CASES_A_KIND)
    ]


def test_in_a_notebook_every_planted_secret_is_found_as_in_a_script() -> None:
    escape = random.Random(3)
    for _, frame, secret in planted(Draw(7)):
        text = frame.format(secret)
        escaped = "".join(
            f"\\u{ord(c):04x}" if escape.random() < 0.1 else json.dumps(c)[1:-1] for c in text
        )
        content = f'{{"cells": [{{"source": "{escaped}"}}]}}'
        spans = secrets.find_spans(content, NOTEBOOK)
        redacted = json.loads(secrets.redact(content, spans, NOTEBOOK))
        assert redacted["cells"][0]["source"] == secrets.redact(text, secrets.find_spans(text))


def test_planted_secrets_and_hard_negatives(capsys: pytest.CaptureFixture[str]) -> None:
    draw = Draw(7)
    cases = planted(draw)
    num_planted, num_found = Counter(name for name, _, _ in cases), Counter[str]()
    missed = []
    for name, frame, secret in cases:
        text = frame.format(secret)
        data = text.encode()
        if secret in {data[s["start"] : s["end"]].decode() for s in secrets.find_spans(text)}:
            num_found[name] += 1
        else:
            missed.append(text)
    negatives = [draw.one(texts) for texts in HARMLESS.values() for _ in range(2 * CASES_A_KIND)]
    false = [text for text in negatives if secrets.find_spans(text)]
    recall = num_found.total() / len(cases)
    precision = num_found.total() / (num_found.total() + len(false))
    by_kind = [f"{name} {num_found[name]}/{n}" for name, n in num_planted.items()]
    with capsys.disabled():
        print(
            f"\nplanted secrets: {num_found.total()} of {len(cases)} found whole (recall"
            f" {recall:.3f}); {len(false)} of {len(negatives)} hard negatives flagged (precision"
            f" {precision:.3f}). Found of each kind: {', '.join(by_kind)}."
        )
    assert len(cases) >= 300
    assert len(negatives) >= 300
    assert recall >= 0.985, missed[:5]
    assert precision >= 0.99, false[:5]
    assert all(num_found[name] >= 0.8 * n for name, n in num_planted.items()), missed[:5]
