"""A peer as a process: reads one JSON object a line from stdin, answers with one on stdout. `python main.py PEER`.

Runs inside the peer's own environment, so it imports nothing of ours; `PEER_worker.py` beside this file holds the peer.
Requests ({"op": ...}) are start, generate, score, flush, close; `adapters/worker.py` says what is in them. What libraries print
goes to stderr.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path


def load(name: str):
    """The class `Peer` in the file beside this one; by path, because the peer's own package may have its name."""
    place = Path(__file__).resolve().parent / f"{name}_worker.py"
    spec = importlib.util.spec_from_file_location(f"bench_{name}_worker", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Peer()


def main(name: str) -> None:
    """Answer until stdin ends or `close` comes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    peer = None
    for line in sys.stdin:
        request = json.loads(line)
        operation = request.pop("op")
        if operation == "close":
            break
        try:
            peer = peer or load(name)
            answer = getattr(peer, operation)(**request) or {}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
