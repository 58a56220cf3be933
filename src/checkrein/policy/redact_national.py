"""Numbers that states give to persons: the form of each, and the module of `python-stdnum` that
checks it.

A form that nothing else has is looked for anywhere; plain digits only after a word for them, since
one in ten of any digits has a right check digit.
"""

from checkrein.policy.redact_libraries import is_national_id

KIND = "national-id"

ANYWHERE: tuple[tuple[str, str], ...] = (
    (
        "it.codicefiscale",
        r"[A-Z]{6}[0-9L-NP-V]{2}[A-EHLMPR-T][0-9L-NP-V]{2}[A-Z][0-9L-NP-V]{3}[A-Z]",
    ),
    ("mx.curp", r"[A-Z]{4}[0-9]{6}[HMX][A-Z]{5}[0-9A-Z][0-9]"),
    ("br.cpf", r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}"),
    ("es.nie", r"[XYZ]-?[0-9]{7}-?[A-Z]"),
    ("es.dni", r"[0-9]{8}-[A-Z]"),
    ("fr.nir", r"[12] ?[0-9]{2} ?[0-9]{2} ?[0-9][0-9AB] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}"),
    ("ch.ssn", r"756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}"),
    ("be.nn", r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}[- ][0-9]{3}[.-][0-9]{2}"),
    ("fi.hetu", r"[0-3][0-9][01][0-9]{3}[-+A-FU-Y][0-9]{3}[0-9A-Y]"),
    ("se.personnummer", r"(?:19|20)?[0-9]{6}[-+][0-9]{4}"),
    ("kr.rrn", r"[0-9]{6}-[0-9]{7}"),
    ("cz.rc", r"[0-9]{6}/[0-9]{3,4}"),
    ("in_.aadhaar", r"[2-9][0-9]{3}[ -][0-9]{4}[ -][0-9]{4}"),
    ("in_.pan", r"[A-Z]{3}P[A-Z][0-9]{4}[A-Z]"),
    ("cn.ric", r"[1-9][0-9]{16}[0-9X]"),
    ("us.itin", r"9[0-9]{2}-[5-9][0-9]-[0-9]{4}"),
    ("gb", r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]"),
)  # fmt: skip
"""No check digits have `in_.pan` and `gb` (the national insurance number)."""

AFTER_A_WORD: tuple[tuple[str, str, str], ...] = (
    ("nl.bsn", r"bsn|burgerservicenummer", r"[0-9]{9}"),
    ("pl.pesel", r"pesel", r"[0-9]{11}"),
    ("de.idnr", r"steuer-?id(?:entifikations)?(?:-?(?:nr|nummer))?|idnr|tax.id",
     r"[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}"),
    ("no.fodselsnummer", r"f.{1,2}dselsnummer|personnummer", r"[0-9]{6} ?[0-9]{5}"),
    ("dk.cpr", r"cpr", r"[0-9]{6}-?[0-9]{4}"),
    ("tr.tckimlik", r"t\.?c\.? ?kimlik", r"[0-9]{11}"),
    ("za.idnr", r"(?:rsa |south african )?id(?:entity)? (?:no|number)", r"[0-9]{13}"),
    ("au.tfn", r"tfn|tax file number", r"[0-9]{3} ?[0-9]{3} ?[0-9]{3}"),
    ("ca.sin", r"\bsin\b|social insurance", r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}"),
    ("gb.nhs", r"\bnhs\b", r"[0-9]{3} ?[0-9]{3} ?[0-9]{4}"),
    ("ro.cnp", r"\bcnp\b", r"[0-9]{13}"),
    ("in_.aadhaar", r"aadhaa?r", r"[0-9]{12}"),
    ("es.dni", r"\bdni\b", r"[0-9]{8} ?[A-Za-z]"),
)  # fmt: skip

GAP_CHARS_MAX = 20
"""Between the word and the digits."""


def is_one(module: str, text: bytes, start: int, end: int) -> bool:
    """Whether what stands there is a person's number by this module's rules, and not a part of a
    longer row of digits."""
    before, after = text[start - 2 : start] if start > 1 else text[:start], text[end : end + 2]
    if before[-1:].isalnum() or after[:1].isalnum():
        return False
    if before[-1:] in (b".", b"-", b"_", b"/") and before[:1].isalnum():
        return False
    if after[:1] in (b".", b"-", b"_", b"/", b" ") and after[1:].isdigit():
        return False
    return module == "gb" or is_national_id(module, text[start:end])
