"""llama.cpp through its low-level API, as well as a careful program can use it: tokens that several prompts of a batch share
are decoded once for all of their sequences, and a sequence that holds the beginning of a later prompt is continued."""

# pyright: reportMissingImports=false
from __future__ import annotations

import ctypes
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as c

UBATCH = 512
BATCH = 2048


def _beside(name: str) -> Any:
    """A module in the folder of this file, by its path."""
    place = Path(__file__).resolve().parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"bench_{name}", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


shared = _beside("shared_tokens")


class Peer:
    """See `main.py`."""

    def start(self, model: str, threads: int, context: int, rows: int, tokens: int, variant: str = "BF16", **_):
        """variant: BF16, Q8_0, Q4_0 or F32, the type of all matrices. tokens: places in the KV cache."""
        kind = variant or "BF16"
        c.llama_backend_init()
        self.silent = c.llama_log_callback(lambda *_: None)
        c.llama_log_set(self.silent, ctypes.c_void_p())
        file = _beside("gguf_file").write(Path(model), kind)
        self.model = c.llama_model_load_from_file(str(file).encode(), c.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"{file} could not be loaded")
        self.rows = rows
        params = c.llama_context_default_params()
        params.n_ctx = -(-(tokens + 256) // 256) * 256
        params.n_batch, params.n_ubatch, params.n_seq_max = BATCH, UBATCH, rows
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type, params.kv_unified, params.no_perf = 1, True, True
        if hasattr(params, "n_outputs_max"):
            params.n_outputs_max = BATCH
        self.context = c.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("llama.cpp made no context of this size")
        self.memory = c.llama_get_memory(self.context)
        self.vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))
        self.batch = c.llama_batch_init(BATCH, 0, rows)
        self.held: list = [[] for _ in range(rows)]
        return {"version": f"llama.cpp (llama-cpp-python {llama_cpp.__version__}), {kind}", "keeps_prefixes": True}

    def flush(self):
        """Forget all sequences."""
        c.llama_memory_clear(self.memory, False)
        self.held = [[] for _ in range(self.rows)]

    def _decode(self, entries: list) -> list:
        """Run them in order, a batch at a time; logits of the wanted ones, fp32 [vocab], in order."""
        found = []
        for begin in range(0, len(entries), BATCH):
            part = entries[begin : begin + BATCH]
            for i, one in enumerate(part):
                self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = one.token, one.position, one.wanted
                self.batch.n_seq_id[i] = len(one.sequences)
                for j, sequence in enumerate(one.sequences):
                    self.batch.seq_id[i][j] = sequence
            self.batch.n_tokens = len(part)
            status = c.llama_decode(self.context, self.batch)
            if status:
                raise RuntimeError(f"llama_decode returned {status}")
            for i, one in enumerate(part):
                if one.wanted:
                    row = c.llama_get_logits_ith(self.context, i)
                    found.append(np.ctypeslib.as_array(row, (self.vocab,)).copy())
        return found

    def _continue(self, prompts: list) -> tuple[list, list]:
        """Give each prompt the sequence of its number; keep what that one holds of it already. Tails and where they begin."""
        tails, begins = [], []
        for i, prompt in enumerate(prompts):
            held = self.held[i]
            limit = min(len(held), len(prompt) - 1)
            same = next((at for at in range(limit) if held[at] != prompt[at]), limit)
            if not c.llama_memory_seq_rm(self.memory, i, same, -1):
                raise RuntimeError("llama_memory_seq_rm failed")
            self.held[i] = list(prompt)
            tails.append(prompt[same:])
            begins.append(same)
        return tails, begins

    def _forget_others(self, count: int) -> None:
        for i in range(count, self.rows):
            if self.held[i]:
                c.llama_memory_seq_rm(self.memory, i, -1, -1)
                self.held[i] = []

    def generate(self, prompts: list, output: int, samples: int):
        """Greedy, or drawn at temperature 1 where there are several samples."""
        prompts = [prompt for prompt in prompts for _ in range(samples)]
        rng = np.random.default_rng(0)
        started = time.perf_counter()
        self._forget_others(len(prompts))
        tails, begins = self._continue(prompts)
        entries, paths = shared.merged(tails, begins, share=not any(begins))
        ends = sorted({path[-1] for path in paths})
        for end in ends:
            entries[end].wanted = True
        rows = dict(zip(ends, self._decode(entries), strict=True))
        logits = [rows[path[-1]] for path in paths]
        ids: list = [[] for _ in prompts]
        times = []
        for step in range(output):
            for i, row in enumerate(logits):
                ids[i].append(int(row.argmax()) if samples == 1 else int((row + rng.gumbel(size=row.shape)).argmax()))
            times.append(time.perf_counter() - started)
            if step + 1 == output:
                break
            new = []
            for i, own in enumerate(ids):
                one = shared.Entry(own[-1], len(prompts[i]) + step, [i], wanted=True)
                new.append(one)
            logits = self._decode(new)
        seconds = time.perf_counter() - started
        for i, own in enumerate(ids):
            self.held[i] += own[:-1]
        return {
            "seconds": seconds,
            "sequences": [{"ids": own, "times": times} for own in ids],
            "cached": sum(map(len, prompts)) - len(entries),
            "computed": len(entries),
        }

    def score(self, prompts: list, choices: list):
        """A prompt's choices as sequences that share it, one prompt after the other, each from the one before it."""
        started = time.perf_counter()
        scores = []
        for prompt in prompts:
            same = 0
            if self.held[0]:
                limit = min(len(self.held[0]), len(prompt) - 1)
                same = next((at for at in range(limit) if self.held[0][at] != prompt[at]), limit)
            for i in range(1, self.rows):
                c.llama_memory_seq_rm(self.memory, i, -1, -1)
            c.llama_memory_seq_rm(self.memory, 0, same, -1)
            for i in range(1, len(choices)):
                c.llama_memory_seq_cp(self.memory, 0, i, -1, -1)
            entries, paths = shared.merged([prompt[same:] + choice for choice in choices], [same] * len(choices), share=True)
            wanted = [path[len(prompt) - same - 1 : -1] for path in paths]
            numbers = sorted({number for path in wanted for number in path})
            for number in numbers:
                entries[number].wanted = True
            logs = {}
            for number, row in zip(numbers, self._decode(entries), strict=True):
                high = row.max()
                logs[number] = row - (high + np.log(np.exp(row - high).sum()))
            for choice, path in zip(choices, wanted, strict=True):
                scores.append([float(logs[number][token]) for number, token in zip(path, choice, strict=True)])
            for i in range(1, len(choices)):
                c.llama_memory_seq_rm(self.memory, i, -1, -1)
            c.llama_memory_seq_rm(self.memory, 0, len(prompt), -1)
            self.held = [list(prompt), *([] for _ in range(self.rows - 1))]
        step = len(choices)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "scores": [scores[i : i + step] for i in range(0, len(scores), step)]}
