"""A peer in a process of its own environment, spoken to in lines of JSON (`workers/main.py` is the other end).

start: model folder, sizes -> version. flush. generate: prompts, output, samples -> seconds, sequences, cached, computed.
score: prompts, choices -> seconds, scores. An answer with `error` ends the peer's part in the benchmark.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .base import Continuation, Generate, Needs, Run, Unusable, Work, prompt_lists

WORKERS = Path(__file__).resolve().parent.parent / "workers"
LONGEST_LINE = 1 << 28
TCMALLOC = "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"


def environment(peer: str, python: Path, needs: Needs) -> dict[str, str]:
    """Variables that a peer is started with. vLLM takes its sizes by them, and its documentation wants libraries loaded before
    everything, where they are to be had."""
    if peer != "vllm":
        return {}
    wanted = [python.parent.parent / "lib" / "libiomp5.so", Path(TCMALLOC)]
    cores = sorted(os.sched_getaffinity(0))[: needs.threads]
    return {
        "LD_PRELOAD": ":".join(str(one) for one in wanted if one.exists()),
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, -(-needs.kv_bytes // 2**30))),
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


class WorkerAdapter:
    """See `base.Adapter`. peer: which of the workers; python: of its environment; variant: see the worker's `start`."""

    def __init__(self, name: str, peer: str, python: Path, variant: str = "", log: Path | None = None):
        self.name, self.about, self.keeps_prefixes = name, name, False
        self._peer, self._python, self._variant, self._log = peer, python, variant, log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, model: Path, needs: Needs) -> None:
        """See `base.Adapter`."""
        # Peers get no environment of ours but what a shell would give them.
        command = ["env", "-u", "PYTHONPATH", "-u", "PYTHONSAFEPATH", "-u", "OMP_NUM_THREADS"]
        command += [f"{name}={value}" for name, value in environment(self._peer, self._python, needs).items()]
        command += [str(self._python), str(WORKERS / "main.py"), self._peer]
        pipe = asyncio.subprocess.PIPE
        with open(self._log or os.devnull, "wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, stderr=errors, limit=LONGEST_LINE, start_new_session=True
            )
        answer = await self._ask("start", model=str(model), variant=self._variant, **asdict(needs))
        self.about, self.keeps_prefixes = answer["version"], answer["keeps_prefixes"]

    async def flush(self) -> None:
        """See `base.Adapter`."""
        await self._ask("flush")

    async def run(self, work: Work) -> Run:
        """See `base.Adapter`."""
        prompts = prompt_lists(work)
        if isinstance(work, Generate):
            answer = await self._ask("generate", prompts=prompts, output=work.output, samples=work.samples)
        else:
            answer = await self._ask("score", prompts=prompts, choices=[list(choice) for choice in work.choices])
        return Run(
            seconds=answer["seconds"],
            sequences=tuple(Continuation(tuple(one["ids"]), tuple(one["times"])) for one in answer.get("sequences", ())),
            cached=answer.get("cached"),
            computed=answer.get("computed"),
            scores=tuple(tuple(tuple(choice) for choice in prompt) for prompt in answer.get("scores", ())),
        )

    async def close(self) -> None:
        """See `base.Adapter`."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _ask(self, op: str, **fields: Any) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except ConnectionError:
            line = b""
        if not line:
            status = await process.wait()
            where = f"; its errors are in {self._log}" if self._log else ""
            raise Unusable(f"{self.name} ended with status {status} at {op!r}{where}")
        answer = json.loads(line)
        if "error" in answer:
            raise Unusable(f"{self.name}: {answer['error']}")
        return answer
