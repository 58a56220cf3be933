"""Secrets and personal data made up from a seed, the places they turn up in, and innocent texts."""

import json
import string
from collections.abc import Callable, Iterator
from hashlib import sha1, sha256
from random import Random
from typing import Any
from uuid import UUID

WORDS = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


def drawn(chance: Random, letters: str, size: int) -> str:
    return "".join(chance.choice(letters) for _ in range(size))


def password(chance: Random) -> str:
    return drawn(chance, string.ascii_lowercase, 5) + drawn(chance, string.digits + "!@$%^*-_+", 5)


def card(chance: Random) -> str:
    """A number with a right checksum, with or without spaces and dashes."""
    head = chance.choice(["4" + drawn(chance, "0123456789", 14), "5" + str(chance.randint(1, 5))
                          + drawn(chance, "0123456789", 13)])  # fmt: skip
    total = sum(
        n if place % 2 else (2 * n - 9 if n > 4 else 2 * n)
        for place, n in enumerate(map(int, head))
    )
    digits = head + str(-total % 10)
    separator = chance.choice(["", " ", "-"])
    return separator.join(digits[at : at + 4] for at in range(0, 16, 4))


def iban(chance: Random) -> str:
    country, size = chance.choice([("DE", 18), ("GB", 18), ("FR", 23), ("NL", 14), ("NO", 11)])
    head = "".join(chance.choice(string.ascii_uppercase) for _ in range(4))
    body = head + drawn(chance, string.digits, size - 4) if country in ("GB", "NL") else drawn(
        chance, string.digits, size)  # fmt: skip
    number = int("".join(str(int(letter, 36)) for letter in f"{body}{country}00"))
    text = f"{country}{98 - number % 97:02}{body}"
    return (
        text
        if chance.random() < 0.5
        else " ".join(text[n : n + 4] for n in range(0, 40, 4)).strip()
    )


def jwt(chance: Random) -> str:
    head, body = drawn(chance, WORDS, 20), drawn(chance, WORDS, 40)
    return f"eyJ{head}.eyJ{body}.{drawn(chance, WORDS + '-_', 43)}"


def private_key(chance: Random) -> str:
    kind = chance.choice(["RSA ", "", "OPENSSH ", "EC "])
    lines = "\n".join(drawn(chance, WORDS + "+/", 64) for _ in range(6))
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----"


Made = Callable[[Random], str]
SECRETS: dict[str, Made] = {
    "openai": lambda c: f"sk-proj-{drawn(c, WORDS, 48)}",
    "openai old": lambda c: f"sk-{drawn(c, WORDS, 48)}",
    "anthropic": lambda c: f"sk-ant-api03-{drawn(c, WORDS + '-_', 93)}A",
    "aws": lambda c: c.choice(["AKIA", "ASIA"]) + drawn(c, string.ascii_uppercase + "234567", 16),
    "github": lambda c: f"gh{c.choice('pousr')}_{drawn(c, WORDS, 36)}",
    "github fine": lambda c: f"github_pat_{drawn(c, WORDS, 22)}_{drawn(c, WORDS, 59)}",
    "gitlab": lambda c: f"glpat-{drawn(c, WORDS + '-', 19)}x",
    "slack": lambda c: f"xox{c.choice('bpar')}-{drawn(c, string.digits, 12)}-{drawn(c, WORDS, 24)}",
    "google": lambda c: f"AIza{drawn(c, WORDS + '-_', 34)}x",
    "stripe": lambda c: f"sk_live_{drawn(c, WORDS, 24)}",
    "npm": lambda c: f"npm_{drawn(c, WORDS, 36)}",
    "hugging face": lambda c: f"hf_{drawn(c, WORDS, 34)}",
    "sendgrid": lambda c: f"SG.{drawn(c, WORDS, 22)}.{drawn(c, WORDS, 43)}",
    "vault": lambda c: f"hvs.{drawn(c, WORDS, 24)}",
    "jwt": jwt,
    "private key": private_key,
}
PERSONAL: dict[str, Made] = {
    "mail": lambda c: (
        f"{drawn(c, string.ascii_lowercase, 6)}.{drawn(c, WORDS, 4)}+x@"
        f"{drawn(c, string.ascii_lowercase, 7)}.{c.choice(['com', 'co.uk', 'museum'])}"
    ),
    "card": card,
    "iban": iban,
    "phone": lambda c: (
        f"{c.choice(['+49 151', '+44 7400', '+33 612', '+91 987', '+34 612', '+61 412'])} "
        f"{c.randint(100, 999)} {c.randint(100, 999)}"
    ),
    "phone us": lambda c: f"({c.randint(201, 989)}) {c.randint(200, 999)}-{c.randint(1000, 9999)}",
    "ssn": lambda c: f"{c.randint(100, 665)}-{c.randint(10, 99)}-{c.randint(1000, 9999)}",
}

PLACES: list[Callable[[str], Any]] = [
    lambda s: s,
    lambda s: f"the answer is {s}, and that is all",
    lambda s: f"first line\n{s}\nlast line",
    lambda s: f"«{s}» é漢字",
    lambda s: f"('{s}',)",
    lambda s: {"note": s},
    lambda s: {"a": [{"b": ({"c": f"see {s}."},)}]},
    lambda s: json.dumps({"text": f"here: {s}", "n": 3}),
    lambda s: json.dumps(json.dumps({"text": s})),
    lambda s: {s: 1},
    lambda s: f"curl -H 'X-Value: {s}' https://acme.com/",
    lambda s: f'x = "{s}"  # set\ny = 2',
    lambda s: [1, None, s, {"k": True}],
    lambda s: "lorem ipsum dolor " * 200 + f"{s} " + "sit amet " * 200,
]
PASSWORD_PLACES: list[Callable[[str], Any]] = [
    lambda s: f"password={s}",
    lambda s: f"DB_PASSWORD={s}\nHOST=x",
    lambda s: f"password: {s}",
    lambda s: f"{{'pwd': '{s}', 'user': 'x'}}",
    lambda s: json.dumps({"client_secret": s}),
    lambda s: json.dumps({"body": json.dumps({"password": s})}),
    lambda s: {"password": s},
    lambda s: {"auth": {"dbPassword": s}},
    lambda s: {"secrets": [{"value": s}]},
    lambda s: {"x-api-key": s},
    lambda s: f"postgres://user:{s}@db.acme.com:5432/x",
    lambda s: f"export API_KEY='{s}'",
    lambda s: f"https://acme.com/cb?api_key={s}&x=1",
    lambda s: f'passphrase => "{s}"',
]


def canaries(seed: int, count: int, kinds: dict[str, Made]) -> Iterator[tuple[str, str, Any]]:
    """(what it is, the secret, a value that contains it), in all places in turn."""
    chance = Random(seed)
    names = list(kinds)
    for number in range(count):
        name = names[number % len(names)]
        secret = kinds[name](chance)
        yield name, secret, PLACES[(number // len(names)) % len(PLACES)](secret)


def passwords(seed: int, count: int) -> Iterator[tuple[str, str, Any]]:
    chance = Random(seed)
    for number in range(count):
        secret = password(chance)
        yield "password", secret, PASSWORD_PLACES[number % len(PASSWORD_PLACES)](secret)


CODE = (
    "def login(user: str, password: str) -> Token:\n    return sign(user, password)\n",
    "password = os.environ['DB_PASSWORD']\n",
    "token = tokenizer.next()\nif token.kind == 'key': keys[token.text] = 1\n",
    "const { secret, token } = await getSecret(config.secret);\n",
    "for key, value in items: print(key, value)\n",
    "max_tokens: 4096, key: 'name', sort_key=\"created_at\"\n",
    "git clone git@github.com:acme/x.git && cd x\n",
    "See https://acme.com:8080/a/b@2x.png and npm i left-pad@1.3.0\n",
    "api_key = config.api_key; password = self.password\n",
    "token_count=12, secret santa party; the key: value pairs; pass the salt\n",
)


def innocent(seed: int, count: int) -> Iterator[Any]:
    """What is no secret and nothing personal, but looks a little like it."""
    chance = Random(seed)
    pick = chance.randint
    made: list[Callable[[], Any]] = [
        lambda: f"id {UUID(int=chance.getrandbits(128), version=4)} done",
        lambda: {"request_id": str(UUID(int=chance.getrandbits(128), version=4))},
        lambda: f"commit {sha1(chance.randbytes(4)).hexdigest()}",
        lambda: {"sha256": sha256(chance.randbytes(4)).hexdigest(), "cache_key": "user:42:profile"},
        lambda: {"trace_id": f"{chance.getrandbits(128):032x}", "ts": 1.7e18 + chance.random()},
        lambda: f"at {pick(1_600_000_000_000, 1_800_000_000_000)} ms",
        lambda: f"2024-{pick(1, 12):02}-{pick(1, 28):02}T10:11:12.{pick(0, 999999):06}+00:00",
        lambda: f"Mon Jan {pick(1, 28)} 12:00:00 +0200 2024",
        lambda: f"total ${pick(1, 9999):,}.{pick(0, 99):02} for {pick(1, 99)} items",
        lambda: f"score {chance.random()}",
        lambda: {"scores": [chance.random() for _ in range(5)], "n": pick(0, 10**9)},
        lambda: f"order ORD-{pick(10**5, 10**9)} of 2024-03-{pick(1, 28):02}",
        lambda: f"{pick(1, 255)}.{pick(0, 255)}.{pick(0, 255)}.{pick(0, 255)}:8080",
        lambda: f"version {pick(0, 9)}.{pick(0, 99)}.{pick(0, 999)}",
        lambda: f"/usr/lib/python3.11/site-packages/x{pick(1, 999)}/__init__.py",
        lambda: f"ISBN 978-{pick(0, 9)}-{pick(100, 999)}-{pick(10000, 99999)}-{pick(0, 9)}",
        lambda: f"rows {pick(100, 999)} {pick(100, 999)} {pick(1000, 9999)}",
        lambda: {"next_page_token": None, "tokens": pick(1, 9999), "key": "name"},
        lambda: f"invoice {pick(10**9, 10**12)}",
        lambda: chance.choice(CODE),
    ]  # fmt: skip
    for number in range(count):
        yield made[number % len(made)]()
