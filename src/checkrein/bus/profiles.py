"""The usual flows of an agent as they are kept and delivered.

The role `watch` writes a `LearnedProfile` into the bucket `profiles`; the api puts the profile
alone, packed, into the `PactSet` of an agent whose pact asks for it.
"""

import msgspec

from checkrein.bus.messages import MessageError, decode, encode
from checkrein.policy.flow.profile import WHOLE, Profile, TypeProfile

PROFILE_BYTES_MAX = 256 * 1024


class LearnedProfile(msgspec.Struct, kw_only=True):
    """What was learned for one agent in one environment. `revision` rises with every writing and is
    not below the seconds since 1970. `position`: of the last message of the stream EVENTS that it
    knows of. `left_out`: runs that ended and taught nothing. `updated_at`: ns since 1970."""

    agent: str
    environment: str
    profile: Profile
    revision: int = 0
    position: int = 0
    left_out: int = 0
    updated_at: int = 0


def packed(profile: Profile) -> bytes:
    return encode(profile)


def unpacked(data: bytes) -> Profile:
    """Raises MessageError, for what is too large, too."""
    if len(data) > PROFILE_BYTES_MAX:
        raise MessageError(f"a profile of {len(data)} bytes, more than {PROFILE_BYTES_MAX}")
    return decode(data, Profile)


def fitted(profile: Profile, bytes_max: int = PROFILE_BYTES_MAX - 1_000) -> Profile:
    """The profile itself when it is small enough; else without what was used least: whole types of
    task with the fewest runs, then half of what is in a type, and so on."""
    if len(packed(profile)) <= bytes_max:
        return profile
    types = dict(profile.types)
    for name in sorted(types, key=lambda name: types[name].runs):
        if name != WHOLE and len(types) > 2:
            del types[name]
            if len(packed(Profile(types=types))) <= bytes_max:
                return Profile(types=types)
    while len(packed(Profile(types=types))) > bytes_max:
        types = {name: _halved(each) for name, each in types.items()}
    return Profile(types=types)


def _halved(known: TypeProfile) -> TypeProfile:
    return TypeProfile(
        runs=known.runs, sinks=_most_used(known.sinks), edges=_most_used(known.edges),
        approved=_most_used(known.approved),
        values={
            target: known.values[target]
            for target in _most_used({name: each.uses for name, each in known.values.items()})
        },
    )  # fmt: skip


def _most_used(counts: dict[str, int]) -> dict[str, int]:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return dict(ordered[: len(ordered) // 2])
