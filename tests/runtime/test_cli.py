"""The command line without an engine: what it accepts, refuses and prints."""

from __future__ import annotations

import io
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import ramify
from ramify.runtime.cli import ENGINE_FLAGS, build_parser, engine_options, main, parse, sampling_params
from ramify.runtime.commands.bench import benchmarks
from ramify.runtime.commands.doctor import machine
from ramify.runtime.commands.serve import check_address, open_to_all, resolve_said
from ramify.runtime.config import EngineOptions
from ramify.runtime.console import amount, columns, gib, panel, table
from ramify.runtime.errors import InvalidRequest
from ramify.runtime.protocol import SamplingParams
from ramify.runtime.server.options import ServerOptions


def run_ramify(*args: str, stdin: str = "", cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """`ramify ARGS` in a process of its own, without a terminal. environ: more variables."""
    command = [sys.executable, "-m", "ramify.runtime.cli", *args]
    env = {**os.environ, "PYTHONSAFEPATH": "1", **environ}
    return subprocess.run(command, input=stdin, env=env, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ramify {ramify.__version__}\n"


def test_without_a_command_the_help_is_shown_and_the_status_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("demo", "chat", "generate", "run", "serve", "bench", "doctor"))


@pytest.mark.parametrize("command", ["demo", "chat", "generate", "run", "serve", "bench", "doctor"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0 and f"ramify {command}" in capsys.readouterr().out


def test_every_engine_option_has_a_flag_and_no_flag_is_without_an_option() -> None:
    assert tuple(ENGINE_FLAGS) == EngineOptions.__struct_fields__


def test_flags_spell_engine_options() -> None:
    line = "generate Hi --model m --kv-tokens 4096 --max-running 8 --chunk-tokens 64 --context-length 512 --threads 1"
    line += " --page-size 16 --eviction lfu --schedule fcfs --dtype float32 --quantization int4 --device cpu --queue 9 --depth 2"
    line += " --no-generation-defaults --kv-dtype int8 --no-tree-attention --no-cuda-graphs --deterministic --no-grammar-cache"
    said = engine_options(build_parser().parse_args(line.split()))
    assert said == EngineOptions(
        model="m",
        device="cpu",
        dtype="float32",
        quantization="int4",
        kv_dtype="int8",
        kv_tokens=4096,
        max_running=8,
        chunk_tokens=64,
        context_length=512,
        threads=1,
        page_size=16,
        eviction="lfu",
        schedule="fcfs",
        generation_defaults=False,
        queue=9,
        depth=2,
        tree_attention=False,
        cuda_graphs=False,
        deterministic=True,
        grammar_cache=False,
    )
    fraction = build_parser().parse_args(["chat", "a/model", "--mem-fraction", "0.5"])
    assert engine_options(fraction) == EngineOptions(model="a/model", mem_fraction=0.5)
    dummy = build_parser().parse_args(["serve", "a/model", "--load-format", "dummy"])
    assert engine_options(dummy) == EngineOptions(model="a/model", load_format="dummy")


def test_what_is_not_said_keeps_its_default() -> None:
    assert engine_options(build_parser().parse_args(["demo"])) == EngineOptions()
    said = sampling_params(build_parser().parse_args(["chat"]))
    assert said == msgspec.structs.replace(SamplingParams(), max_new_tokens=256)


def test_flags_spell_sampling_parameters() -> None:
    line = ["generate", "Hi", "--max-tokens", "5", "--temperature", "0", "--top-p", "0.9", "--top-k", "3", "--min-p", "0.1"]
    line += ["--repetition-penalty", "1.1", "--seed", "7", "--stop", "a", "--stop", "b", "--ignore-eos"]
    assert sampling_params(build_parser().parse_args(line)) == SamplingParams(
        max_new_tokens=5,
        temperature=0.0,
        top_p=0.9,
        top_k=3,
        min_p=0.1,
        repetition_penalty=1.1,
        seed=7,
        stop=("a", "b"),
        ignore_eos=True,
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["generate", "Hi", "--eviction", "best"], "invalid choice: 'best'"),
        (["generate", "Hi", "--kv-tokens", "many"], "invalid int value: 'many'"),
        (["generate", "Hi", "--regex", "a", "--json-schema", "b"], "not allowed with argument"),
        (["generate", "Hi", "--no-such-flag"], "unrecognized arguments"),
        (["cook"], "invalid choice: 'cook'"),
    ],
)
def test_a_wrong_flag_is_refused_with_status_2(line: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(line)
    assert stopped.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["generate", "Hi", "--json-schema", "nowhere.json"], "nowhere.json cannot be read"),
        (["generate"], "The prompt is empty"),
        (["generate", "Hi", "--model", "/no/such/folder"], "/no/such/folder"),
        (["generate", "Hi", "--kv-tokens", "100", "--mem-fraction", "0.1"], "Give one of them"),
        (["run", "nowhere.py"], "nowhere.py"),
        (["bench", "nothing"], "There is no benchmark 'nothing'"),
        (["serve", "--port", "70000"], "--port: port is 70000"),
        (["serve", "--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["serve", "--api-key-file", "nowhere"], "The key file nowhere cannot be read"),
        (["serve", "--host", "192.0.2.1"], "192.0.2.1 is no address of this machine"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(args: list[str], said: str, tmp_path: Path) -> None:
    done = run_ramify(*args, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ramify {args[0]}: ") and said in last and "Traceback" not in done.stderr


def test_flags_spell_server_options() -> None:
    line = "serve a/model --host ::1 --port 0 --api-key a --api-key b --admin-api-key c --max-body 7 --idle-timeout-s 2.5"
    line += " --lenient-params --no-log-json --log-level error --cors-origin * --kv-tokens 64"
    config = resolve_said(build_parser().parse_args(line.split())).config
    assert config.engine == EngineOptions(model="a/model", kv_tokens=64)
    assert config.server == ServerOptions(
        host="::1",
        port=0,
        api_keys=("a", "b"),
        admin_api_keys=("c",),
        max_body=7,
        idle_timeout_s=2.5,
        lenient_params=True,
        log_level="error",
        cors_origins=("*",),
    )


def test_the_help_of_serve_has_groups_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f" {group}: " in shown for group in ("listening", "keys", "limits", "logging", "engine", "configuration"))
    assert "(default: 30000)" in shown and "32 MiB" in shown and "--[no-]log-json" not in shown and "parent" not in shown


def test_the_configuration_is_printed_with_the_origin_of_each_value(tmp_path: Path) -> None:
    (tmp_path / "ramify.yaml").write_text("port: 1\nmax-n: 4\nschedule: fcfs\n")
    said = {"RAMIFY_PORT": "2", "RAMIFY_API_KEY": "sk-secret", "RAMIFY_KV_TOKENS": "64", "RAMIFY_CONFIG": "ramify.yaml"}
    done = run_ramify("serve", "--port", "3", "--print-config", cwd=tmp_path, **said)
    assert (done.returncode, done.stderr) == (0, "")
    for line in ("port: 3  # from --port", "max-n: 4  # from ramify.yaml:max-n", "kv-tokens: 64  # from RAMIFY_KV_TOKENS"):
        assert f"\n{line}\n" in done.stdout
    assert "\nhost: \"127.0.0.1\"  # default\n" in done.stdout and "sk-secret" not in done.stdout


def test_a_key_is_not_shown_when_its_flag_is_misspelled(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "model", "--api-keyz", "sk-secret", "--admin-keyz=sk-secret"])
    shown = capsys.readouterr().err
    assert stopped.value.code == 2 and "--api-keyz --admin-keyz" in shown and "sk-secret" not in shown


def test_a_port_in_use_is_said_before_a_model_is_looked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidRequest, match=f"Port {port} of 127.0.0.1 is in use"):
            check_address("127.0.0.1", port)
        done = run_ramify("serve", "/no/such/model", "--port", str(port))
        assert done.returncode == 2 and done.stderr.startswith(f"ramify serve: Port {port} of 127.0.0.1 is in use")
        assert done.stderr.count("\n") == 1
    check_address("127.0.0.1", port)
    check_address("localhost", 0)


def test_a_server_that_others_reach_without_a_key_is_told_apart() -> None:
    assert open_to_all(ServerOptions(host="0.0.0.0")) and open_to_all(ServerOptions(host="::"))
    assert not any(map(open_to_all, (ServerOptions(), ServerOptions(host="::1"), ServerOptions(host="::", api_keys=("a",)))))


def test_arguments_of_a_program_may_stand_on_both_sides_of_flags() -> None:
    said = parse(build_parser(), ["run", "file.py", "a=1", "--model", "m", "b=2"])
    assert said.args == ["a=1", "b=2"] and engine_options(said) == EngineOptions(model="m")


def test_bench_lists_every_benchmark_with_its_question() -> None:
    known = benchmarks()
    assert all(question.endswith((".", "?", ":")) or question for question in known.values())
    listed = run_ramify("bench")
    assert listed.returncode == 0 and all(name in listed.stdout for name in known)


def test_doctor_describes_the_machine() -> None:
    rows = dict(machine())
    assert str(rows["Python"]).startswith(".".join(map(str, sys.version_info[:3])))
    assert "cores" in str(rows["CPU"])


class Terminal(io.StringIO):
    """Text that is kept, from something that takes us for a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_table_is_plain_when_it_is_not_shown_on_a_terminal() -> None:
    plain = io.StringIO()
    table(("call", "cached"), [("first", 5), ("second call", 120)], right=(1,), file=plain)
    assert plain.getvalue() == "call         cached\nfirst             5\nsecond call     120\n"
    drawn = Terminal()
    table(("call", "cached"), [("first", 5)], right=(1,), file=drawn)
    assert "─" in drawn.getvalue() and "first" in drawn.getvalue()


def test_a_panel_is_plain_when_it_is_not_shown_on_a_terminal() -> None:
    plain = io.StringIO()
    panel("Ramify", [("model", "tiny [x]"), ("", "more")], file=plain)
    assert plain.getvalue() == "Ramify\n  model  tiny [x]\n         more\n"
    drawn = Terminal()
    panel("Ramify", [("model", "tiny [x]")], file=drawn)
    assert "╭" in drawn.getvalue() and "tiny [x]" in drawn.getvalue()


def test_numbers_are_written_for_people() -> None:
    assert [amount(n) for n in (7, 9_999, 14_900, 5_240_000, 494_000_000)] == ["7", "9,999", "14.9 k", "5.2 M", "494.0 M"]
    assert [gib(n) for n in (3 * 2**20, 2**30)] == ["3.0 MiB", "1.00 GiB"]
    assert columns([]) == []


def test_help_is_readable_on_a_terminal() -> None:
    """On a real pseudo-terminal: argparse wraps, and nothing fails for want of a pipe."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "ramify.runtime.cli", "--help"]
    done = subprocess.run(command, stdin=follower, stdout=follower, stderr=follower, timeout=60, check=False)
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert done.returncode == 0 and "usage: ramify" in shown
