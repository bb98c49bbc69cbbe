"""Keys: who is let in, with which header, to which route, and how often at once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ramify.runtime.errors import AuthenticationFailed, InvalidRequest, PermissionDenied, TooManyRequests, from_code
from ramify.runtime.server.auth import Caller, Keys, read_keys
from ramify.runtime.server.options import ServerOptions

USER, OTHER, ADMIN = "sk-user", "sk-other", "sk-admin"


def bearer(key: str) -> str:
    return f"Bearer {key}"


def caller(keys: Keys, key: str, admin: bool = False) -> Caller:
    found = keys.check(bearer(key), admin)
    assert isinstance(found, Caller)
    return found


@pytest.mark.parametrize("header", [None, "", "Bearer anything", "Basic YTpi"])
@pytest.mark.parametrize("admin", [False, True])
def test_without_keys_everyone_may_do_everything(header: str | None, admin: bool) -> None:
    assert Keys().check(header, admin) == Caller(admin=True)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer sk-use",
        "Bearer sk-userr",
        "Bearer sk-user sk-user",
        "sk-user",
        "Basic sk-user",
        "Basic " + "c2stdXNlcjo=",
        "Bearer " + "k" * 8192,
        "Bearer sk-us\udc80r",
        "Bearer sk-usér",
        "Bearer\tsk-user",
    ],
)
def test_whatever_is_not_a_bearer_with_a_key_is_401(header: str | None) -> None:
    error = Keys([USER, OTHER], [ADMIN]).check(header, False)
    assert isinstance(error, AuthenticationFailed) and (error.status, error.code) == (401, "invalid_api_key")
    assert error.type == "authentication_error" and "sk-" not in error.message


@pytest.mark.parametrize("header", ["Bearer sk-user", "bearer sk-user", "BEARER   sk-user "])
def test_the_scheme_is_read_as_http_has_it(header: str) -> None:
    assert isinstance(Keys([USER]).check(header, False), Caller)


def test_a_users_key_does_not_open_a_route_for_admins() -> None:
    keys = Keys([USER], [ADMIN])
    error = keys.check(bearer(USER), True)
    assert isinstance(error, PermissionDenied) and (error.status, error.type, error.code) == (
        403,
        "permission_error",
        "admin_only",
    )
    assert isinstance(keys.check(None, True), AuthenticationFailed)
    assert caller(keys, ADMIN, True).admin and caller(keys, ADMIN).admin and not caller(keys, USER).admin


def test_without_admin_keys_each_key_may_change_the_server() -> None:
    keys = Keys([USER])
    assert isinstance(keys.check(bearer(USER), True), Caller)
    assert isinstance(keys.check(bearer(OTHER), True), AuthenticationFailed)


def test_admin_keys_alone_leave_the_other_routes_open() -> None:
    keys = Keys(admin=[ADMIN])
    assert keys.check(None, False) == Caller() and keys.check("Bearer EMPTY", False) == Caller()
    assert isinstance(keys.check("Bearer EMPTY", True), AuthenticationFailed) and caller(keys, ADMIN, True).admin


def test_a_key_that_is_both_is_an_admins() -> None:
    assert caller(Keys([USER], [USER]), USER).admin


def test_each_of_several_keys_is_a_tenant_and_one_alone_is_none() -> None:
    keys = Keys([USER, OTHER], [ADMIN])
    tenants = {caller(keys, key).tenant for key in (USER, OTHER, ADMIN)}
    assert len(tenants) == 3 and "" not in tenants
    assert caller(Keys([USER, USER]), USER).tenant == ""


def test_the_label_is_the_begin_of_the_hash_and_nothing_shows_the_key() -> None:
    keys = Keys([USER], [ADMIN])
    found = caller(keys, USER)
    assert found.label == hashlib.sha256(USER.encode()).hexdigest()[:4]
    assert USER not in repr(found) + repr(keys) + repr(vars(keys)) and Caller().label == "-"


def test_a_key_has_at_most_so_many_requests_on_their_way() -> None:
    keys = Keys([USER, OTHER], most=2)
    user, other = caller(keys, USER), caller(keys, OTHER)
    with keys.enter(user), keys.enter(user):
        with pytest.raises(TooManyRequests) as caught, keys.enter(user):
            pass
        with keys.enter(other):
            pass
    error = caught.value
    assert (error.status, error.type, error.code) == (429, "rate_limit_error", "concurrency_limit") and error.retry_after_s > 0
    with pytest.raises(ZeroDivisionError), keys.enter(user):
        raise ZeroDivisionError
    with keys.enter(user), keys.enter(user):
        pass


def test_without_a_limit_or_a_key_nothing_is_counted() -> None:
    keys = Keys([USER])
    with keys.enter(caller(keys, USER)), keys.enter(caller(keys, USER)):
        pass
    limited = Keys(admin=[ADMIN], most=1)
    with limited.enter(Caller()), limited.enter(Caller()):
        pass


def test_errors_come_back_from_their_codes() -> None:
    kinds = [type(from_code(code, "m")) for code in ("invalid_api_key", "admin_only", "concurrency_limit")]
    assert kinds == [AuthenticationFailed, PermissionDenied, TooManyRequests]


def test_a_key_file_holds_a_key_a_line_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# ours\n\n{USER}\n  {OTHER}  # a guest\nwith#hash\n")
    assert read_keys(str(path)) == [USER, OTHER, "with#hash"]
    keys = Keys.from_options(ServerOptions(api_keys=("inline",), api_key_file=str(path)))
    assert all(isinstance(keys.check(bearer(key), False), Caller) for key in (USER, OTHER, "inline"))
    assert keys.num_keys == 4 and Keys([USER, USER], [USER]).num_keys == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "holds no key"), (b"# nothing\n", "holds no key"), (b"ok\nsk user\n", "Line 2"), (b"\xff\xfe", "is not text")],
)
def test_a_key_file_that_cannot_be_used_is_refused_without_quoting_it(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=words) as caught:
        read_keys(str(path))
    assert "sk user" not in str(caught.value)
    with pytest.raises(InvalidRequest, match="No such file"):
        read_keys(str(tmp_path / "none"))
