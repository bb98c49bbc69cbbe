"""Who may use which route: API keys, compared in constant time, and how many requests each may have on its way.

Keys are kept as SHA-256 digests. One comes in as `Authorization: Bearer KEY` and in no other way: a key in the query of an
address ends in logs and histories, so it counts as none.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import AuthenticationFailed, InvalidRequest, PermissionDenied, RamifyError, TooManyRequests
from .options import KEY_RULE, MOST_KEY_BYTES, ServerOptions, is_key

CHALLENGE = 'Bearer realm="ramify"'
"""What WWW-Authenticate says beside a 401."""
_COMMENT = re.compile(r"(?:^|\s)#.*")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. number: of the key, -1 without one. label: first 4 hex digits of the key's hash, `-` without one; for logs.

    tenant: whose cached prefixes a request may reuse (`GenerateRequest.tenant`). With one key, or none, everybody is "".
    Among several, each key is a tenant of its own (16 hex digits of its hash), because from the time to the first token one
    key's holder could learn what another one's prompts begin with. Who wants to share a cache shares a key.
    """

    tenant: str = ""
    label: str = "-"
    number: int = -1
    admin: bool = False


class Keys:
    """The keys of a server. A key that is both is an admin's. Owns the count of requests on their way for each key."""

    def __init__(self, user: Iterable[str] = (), admin: Iterable[str] = (), *, most: int | None = None):
        """most: requests that one key may have on their way, None is any number. Keys must pass `is_key`."""
        admins = list(dict.fromkeys(admin))
        users = [key for key in dict.fromkeys(user) if key not in admins]
        self._known: list[tuple[bytes, Caller]] = []
        for number, key in enumerate([*users, *admins]):
            digest = hashlib.sha256(key.encode()).digest()
            tenant = digest.hex()[:16] if len(users) + len(admins) > 1 else ""
            self._known.append((digest, Caller(tenant, digest.hex()[:4], number, number >= len(users))))
        self._has_users, self._has_admins = bool(users), bool(admins)
        self._most = most
        self._entered: Counter[int] = Counter()

    @classmethod
    def from_options(cls, options: ServerOptions) -> Keys:
        """The keys that the options hold and name. Raises InvalidRequest where the key file cannot be used."""
        in_file = read_keys(options.api_key_file) if options.api_key_file is not None else ()
        return cls((*options.api_keys, *in_file), options.admin_api_keys, most=options.key_concurrency)

    @property
    def num_keys(self) -> int:
        """Different keys, admins' included."""
        return len(self._known)

    def check(self, header: str | None, admin: bool) -> Caller | RamifyError:
        """Who sends this `Authorization` header, or the error to answer with. admin: for a route that changes the server.

        Without user keys, routes for users are open; without admin keys, whoever may use the server may change it. Answers only.
        """
        caller = self._caller(header)
        if caller is None:
            if not self._has_users and not (admin and self._has_admins):
                return Caller(admin=not self._has_admins)
            if not header:
                return AuthenticationFailed("No API key was given. Send it in a header: Authorization: Bearer KEY")
            return AuthenticationFailed("This is no API key of this server. Send one in a header: Authorization: Bearer KEY")
        if admin and self._has_admins and not caller.admin:
            return PermissionDenied("This route is for admin keys. Ask whoever runs this server for one.")
        return caller

    @contextmanager
    def enter(self, caller: Caller) -> Iterator[None]:
        """Count one request of this key until the block ends. Raises TooManyRequests at once, changing nothing, where the
        key has its most. Callers without a key are not counted."""
        if self._most is None or caller.number < 0:
            yield
            return
        if self._entered[caller.number] >= self._most:
            raise TooManyRequests(
                f"This API key has {self._most} requests on their way, the most that it may have. Wait until one of them ends."
            )
        self._entered[caller.number] += 1
        try:
            yield
        finally:
            self._entered[caller.number] -= 1

    def _caller(self, header: str | None) -> Caller | None:
        """The holder of the key; every known key is compared, whichever fits."""
        if not header or len(header) > MOST_KEY_BYTES:
            return None
        scheme, _, token = header.partition(" ")
        token = token.strip(" ")
        if scheme.lower() != "bearer" or not is_key(token):
            return None
        digest, found = hashlib.sha256(token.encode()).digest(), None
        for known, caller in self._known:
            if hmac.compare_digest(digest, known):
                found = caller
        return found


def read_keys(path: str) -> list[str]:
    """Keys of a file, one a line; `#` at the begin of a line or after a space begins a comment. Raises InvalidRequest, which
    quotes nothing of the file; a file without a key is refused, because its server would be open to everyone."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidRequest(f"The key file {path} cannot be read: {error.strerror}.", param="api_key_file") from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"The key file {path} is not text. {_RULE}", param="api_key_file") from None
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        key = _COMMENT.sub("", line).strip()
        if key and not is_key(key):
            raise InvalidRequest(f"Line {number} of the key file {path} holds no usable key. {_RULE}", param="api_key_file")
        if key:
            keys.append(key)
    if not keys:
        raise InvalidRequest(f"The key file {path} holds no key. {_RULE}", param="api_key_file")
    return keys


_RULE = f"Write one key a line; {KEY_RULE}"
