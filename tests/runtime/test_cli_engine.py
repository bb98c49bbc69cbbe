"""The command line with an engine: real processes on the bundled model, as a user starts them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

COMMAND = [sys.executable, "-m", "ramify.runtime.cli"]
SMALL = ("--kv-tokens", "4096", "--threads", "1")
PROGRAM = '''
import ramify

@ramify.function
def greet(s, name: str, times: int = 1):
    """A program with arguments, a call and a choice."""
    s += ramify.user(f"Hello, my name is {name}.")
    s += ramify.assistant(ramify.gen("answer", max_tokens=8, temperature=0))
    for number in range(times):
        s += ramify.user("Shall we go on?")
        s += ramify.assistant(ramify.select(f"choice{number}", ["yes", "no"]))
    return f"{name} was greeted"

@ramify.function
def wrong(s):
    s += ramify.user("Hello") + ramify.assistant(ramify.gen("a", max_tokens=100_000))
'''


def run_ramify(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`ramify ARGS` on a small engine, without a terminal."""
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    command = [*COMMAND, *args, *SMALL]
    return subprocess.run(command, input=stdin, env=env, capture_output=True, text=True, timeout=150, check=False)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A file with two programs."""
    path = tmp_path / "greeting.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return path


def test_generate_prints_the_text_alone_and_says_what_it_took() -> None:
    said = ("generate", "Hello", "--max-tokens", "6", "--temperature", "0", "--ignore-eos")
    whole, streamed = run_ramify(*said), run_ramify(*said, "--stream")
    assert whole.returncode == streamed.returncode == 0, whole.stderr
    assert whole.stdout == streamed.stdout
    assert re.search(r"KV pool +4,096 tokens", whole.stderr)
    assert re.search(r"prompt \d+ tokens \(0 cached, \d+ computed\), output 6 \(length\)", whole.stderr)


def test_generate_reads_standard_input_and_obeys_a_schema(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema), encoding="utf-8")
    done = run_ramify("generate", "--chat", "--json-schema", str(path), "--seed", "5", stdin="Ada is 36.")
    assert done.returncode == 0, done.stderr
    jsonschema.validate(json.loads(done.stdout), schema)


def test_a_schema_that_is_none_is_refused_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"type": "nothing"}', encoding="utf-8")
    done = run_ramify("generate", "Hello", "--json-schema", str(path))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("ramify generate: ") and "Traceback" not in done.stderr


def test_a_chat_goes_on_from_the_ids_that_are_held() -> None:
    lines = "Hello, I am Ada.\nWhat is my name?\n/explain\n/reset\n/nonsense\nHello.\n/explain\n"
    done = run_ramify("chat", "--max-tokens", "8", "--temperature", "0", "--system", "Be brief.", stdin=lines)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r" +\d+ +\d+ +\d+ +\d+ +\d+ +\d+ ms", line)]
    first, second, afresh = ([int(number) for number in row[1:5]] for row in rows)
    assert first[1] == 0  # prompt, cached, computed, output
    assert second[1] >= first[0] + first[3] - 1 and second[1] + second[2] == second[0]
    assert afresh[0] < second[0] and afresh[1] > 0  # the system message is still in the cache
    assert "There is no command /nonsense" in done.stderr


def _obey_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_stops_the_answer_and_not_the_chat() -> None:
    command = [*COMMAND, "chat", "--max-tokens", "4000", "--ignore-eos", "--seed", "1", *SMALL]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # A shell's background job ignores interrupts, and its children would too.
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=_obey_interrupts) as chat:
        assert chat.stdin and chat.stdout and chat.stderr
        chat.stdin.write("Tell me a long story.\n")
        chat.stdin.flush()
        assert chat.stdout.read(1)  # the answer has begun
        chat.send_signal(signal.SIGINT)
        said = ""
        while "(stopped)" not in said:
            line = chat.stderr.readline()
            assert line, said
            said += line
        chat.stdin.write("/explain\n")
        chat.stdin.close()
        rest, errors = chat.stdout.read(), chat.stderr.read()
        assert chat.wait(30) == 0 and "Traceback" not in errors
    assert "turn" in rest


def test_run_executes_a_program_from_a_file(program: Path) -> None:
    done = run_ramify("run", f"{program}:greet", "name=7", "times=2", "--explain")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("user: Hello, my name is 7.\nassistant: ") and done.stdout.endswith("7 was greeted\n")
    rows = [line.split() for line in done.stderr.splitlines() if re.match(r" +\d +(gen|select of 2) ", line)]
    assert [row[1] for row in rows] == ["gen", "select", "select"]
    cached = [int(row[-5 if row[1] == "gen" else 5]) for row in rows[1:]]
    assert cached[0] > 0 and cached[1] > cached[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "2 programs (greet, wrong)"),
        ([":other"], "no program 'other'"),
        ([":greet"], "'name' that was not given"),
        ([":greet", "nme=Ada"], "no argument 'nme'"),
        ([":greet", "Ada"], "'Ada' is not NAME=VALUE"),
        ([":wrong"], "100000"),
    ],
)
def test_run_says_what_is_wrong_without_a_traceback(program: Path, words: list[str], said: str) -> None:
    done = run_ramify("run", str(program) + "".join(words[:1]), *words[1:])
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_doctor_finds_nothing_missing() -> None:
    done = subprocess.run([*COMMAND, "doctor"], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("Nothing is missing.\n") and "engine: computed" in done.stdout
