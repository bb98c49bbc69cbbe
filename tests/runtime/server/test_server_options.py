"""What may be said about a server: where it may be said, which place wins, and what is refused with which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ramify.runtime.config import EngineOptions
from ramify.runtime.errors import InvalidRequest
from ramify.runtime.server.config_file import read_config, render_config
from ramify.runtime.server.flags import SERVER_FLAGS, SINGULAR, flag_of
from ramify.runtime.server.options import SECRETS, Hidden, ServeConfig, ServerOptions, validate_server
from ramify.runtime.server.resolve import Resolved, kinds, resolve_serve, spellings

KEY = "sk-very-secret-0123"


def resolved(flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None, file: Any = None) -> Resolved:
    return resolve_serve(flags or {}, environ or {}, file or {}, file_name="ramify.yaml")


def refusal(**said: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        resolved(**said)
    assert KEY not in str(caught.value) and caught.value.__cause__ is None
    return str(caught.value)


def test_nothing_said_is_the_defaults() -> None:
    config, origins = resolved()
    assert config == ServeConfig(EngineOptions(), ServerOptions())
    assert set(origins.values()) == {"default"} and tuple(origins) == tuple(kinds())


def test_engine_and_server_share_no_name_and_every_server_option_has_a_flag() -> None:
    engine, server = EngineOptions.__struct_fields__, ServerOptions.__struct_fields__
    assert not set(engine) & set(server) and len(spellings()) == len(engine) + len(server) + len(SINGULAR)
    assert tuple(name for flags in SERVER_FLAGS.values() for name in flags) == server


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_file() -> None:
    file = {"port": 1, "max-n": 1, "host": "file"}
    config, origins = resolved({"port": 3}, {"RAMIFY_PORT": "2", "RAMIFY_MAX_N": "2"}, file)
    assert (config.server.port, config.server.max_n, config.server.host) == (3, 2, "file")
    assert (origins["port"], origins["max_n"], origins["host"]) == ("--port", "RAMIFY_MAX_N", "ramify.yaml:host")


def test_all_kinds_of_values_can_be_said_in_a_variable() -> None:
    environ = {
        "RAMIFY_MODEL": "a/model",
        "RAMIFY_KV_TOKENS": "4096",
        "RAMIFY_GENERATION_DEFAULTS": "false",
        "RAMIFY_IDLE_TIMEOUT_S": "2.5",
        "RAMIFY_LOG_JSON": "1",
        "RAMIFY_API_KEY": "one, two",
        "RAMIFY_CORS_ORIGINS": "*",
        "PATH": "is none of ours",
    }
    config = resolved(environ=environ).config
    assert config.engine == EngineOptions(model="a/model", kv_tokens=4096, generation_defaults=False)
    assert config.server == ServerOptions(idle_timeout_s=2.5, log_json=True, api_keys=("one", "two"), cors_origins=("*",))


def test_a_file_spells_names_with_dashes_or_underscores_and_null_is_the_default() -> None:
    file = {"kv-tokens": None, "max_body": 10, "api-keys": ["a", "b"], "admin_api_key": "c", "request-timeout-s": 5}
    config = resolved(file=file).config
    assert config.engine == EngineOptions()
    assert config.server == ServerOptions(max_body=10, api_keys=("a", "b"), admin_api_keys=("c",), request_timeout_s=5.0)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"file": {"prot": 1}}, "ramify.yaml has the key prot, which is not known. Did you mean port?"),
        ({"file": {"max_bdy": 1}}, "Did you mean max-body?"),
        ({"file": {"quite-other": 1}}, "See: ramify serve --help."),
        ({"file": {7: 1}}, "the key 7"),
        ({"file": {"port": "many"}}, "ramify.yaml:port is 'many'; it must be a whole number."),
        ({"file": {"port": None}}, "ramify.yaml:port is None; it must be a whole number."),
        ({"file": {"served-model-name": 7}}, "ramify.yaml:served-model-name is 7; it must be a text, or null."),
        ({"file": {"max-body": 1, "max_body": 2}}, "says max-body and max_body, which are one setting"),
        ({"file": {"port": 70000}}, "ramify.yaml:port: port is 70000; it must be 0 (any that is free) to 65535."),
        ({"file": {"mem-fraction": "9" * 5000}}, "ramify.yaml:mem-fraction"),
        ({"environ": {"RAMIFY_PROT": "1"}}, "The variable RAMIFY_PROT is not known. Did you mean RAMIFY_PORT?"),
        ({"environ": {"RAMIFY_port": "1"}}, "The variable RAMIFY_port is not known."),
        ({"environ": {"RAMIFY_PORT": "x"}}, "RAMIFY_PORT is 'x'; it must be a whole number."),
        ({"environ": {"RAMIFY_LOG_JSON": "perhaps"}}, "RAMIFY_LOG_JSON is 'perhaps'; it must be true or false."),
        ({"environ": {"RAMIFY_API_KEY": ""}}, "RAMIFY_API_KEY is empty. Give it a value, or unset it."),
        ({"environ": {"RAMIFY_API_KEY": "a", "RAMIFY_API_KEYS": "b"}}, "are one setting. Unset one of them."),
        ({"environ": {"RAMIFY_KV_TOKENS": "0"}}, "RAMIFY_KV_TOKENS: kv_tokens is 0; it must be at least 1."),
        ({"environ": {"RAMIFY_SCHEDULE": "best"}}, "RAMIFY_SCHEDULE: schedule 'best' is not known."),
        ({"flags": {"log_level": "loud"}}, "--log-level: log_level 'loud' is not known."),
        ({"flags": {"stall_timeout_s": float("nan")}}, "--stall-timeout-s: stall_timeout_s is nan; it must be"),
        ({"flags": {"body_timeout_s": 0.0}}, "above 0"),
        ({"flags": {"max_n": 0}}, "--max-n: max_n is 0; it must be at least 1."),
        ({"flags": {"cors_origins": ["https://a.org/"]}}, "--cors-origin: cors_origins holds 'https://a.org/'"),
        ({"flags": {"host": ""}}, "--host: host is ''"),
        ({"flags": {"key_concurrency": 4}}, "there are no keys"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(said: dict[str, Any], words: str) -> None:
    assert words in refusal(**said)


def test_a_wrong_value_is_refused_also_where_a_stronger_place_says_another() -> None:
    assert "ramify.yaml:port" in refusal(flags={"port": 1}, file={"port": "x"})


@pytest.mark.parametrize("wrong", ["with space " + KEY, KEY + "\n", KEY + "é", KEY * 500, [KEY, ""], [[KEY]], {KEY: 1}, 5])
@pytest.mark.parametrize("name", SECRETS)
def test_a_key_is_never_in_an_error(name: str, wrong: Any) -> None:
    assert f"ramify.yaml:{name}" in refusal(file={name: wrong})
    if isinstance(wrong, str):
        assert flag_of(name) in refusal(flags={name: [wrong]})


def test_zero_is_allowed_where_it_means_something() -> None:
    validate_server(ServerOptions(port=0, drain_timeout_s=0.0, max_stop=0, max_tools=0, max_logit_bias=0, max_top_logprobs=0))


def test_options_refuse_unknown_fields() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"prot": 1}, ServerOptions)


def test_keys_are_hidden_wherever_options_are_shown() -> None:
    config = ServeConfig(server=ServerOptions(api_keys=(KEY, "b"), admin_api_keys=(KEY,), port=1))
    assert KEY not in repr(config) and KEY not in str(config) and "api_keys=<2 hidden>, " in repr(config)
    assert dict(config.server.__rich_repr__())["admin_api_keys"] == Hidden(1) and "port=1" in repr(config.server)


# ------------------------------------------------------------------------------------------------------------- the file


def test_what_is_printed_is_a_file_that_says_the_same(tmp_path: Path) -> None:
    said = {"model": "a: #b", "port": 8000, "mem_fraction": 1e-5, "cors_origins": ["*"], "log_json": True}
    first = resolved(said, {"RAMIFY_API_KEY": KEY}, {"max-body": 5})
    text = render_config(first)
    assert "port: 8000  # from --port\n" in text and "max-body: 5  # from ramify.yaml:max-body\n" in text
    assert "max-n: 128  # default\n" in text and "# api-keys: 1 not shown, from RAMIFY_API_KEY\n" in text and KEY not in text
    (tmp_path / "again.yaml").write_text(text)
    again = resolved(environ={"RAMIFY_API_KEY": KEY}, file=read_config(str(tmp_path / "again.yaml")))
    assert again.config == first.config and set(kinds()) - set(SECRETS) <= {one.replace("-", "_") for one in yaml.safe_load(text)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port: [", "is not YAML at line 1, column 8"),
        (f"api-key: '{KEY}", "is not YAML at line"),
        (f"api-key: *{KEY}", "is not YAML at line"),
        ("- port", "holds no keys"),
        ("port: 1\nport: 2", "says port twice"),
        ("port: !!python/object:os.system {}", "is not YAML at line 1"),
        ("? [a]\n: 1", "is not YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_without_quoting_it(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InvalidRequest) as caught:
        read_config(str(path))
    assert words in str(caught.value) and str(path) in str(caught.value) and KEY not in str(caught.value)


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read: No such file"):
        read_config(str(tmp_path / "none.yaml"))
    (tmp_path / "raw").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        read_config(str(tmp_path / "raw"))


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# only a comment\n")
    assert read_config(str(tmp_path / "c.yaml")) == {}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda one: st.lists(one, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(spellings())) | st.text(max_size=12), anything, max_size=4))
def test_any_file_is_either_taken_or_refused(file: dict[str, Any]) -> None:
    try:
        config, origins = resolved(file=file)
    except InvalidRequest:
        return
    assert set(origins) == set(kinds()) and json.loads(msgspec.json.encode(config))
