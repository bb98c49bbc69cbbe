"""vLLM in its own process: the engine is stepped by hand, so that every token has a time. Sizes of
its cache come by the environment (`adapters/worker.py`)."""

# pyright: reportMissingImports=false
from __future__ import annotations

import time


class Peer:
    """See `main.py`. Its prefix cache is on; `flush` empties it."""

    def start(self, model: str, threads: int, dtype: str, context: int, rows: int, variant: str = "", **_):
        """variant: "" or "eager" (without torch.compile)."""
        import vllm

        self.SamplingParams = vllm.SamplingParams
        self.llm = vllm.LLM(
            model=model,
            dtype=dtype,
            skip_tokenizer_init=True,
            max_model_len=context,
            max_num_seqs=max(rows, 16),
            max_num_batched_tokens=4096,
            enforce_eager=variant == "eager",
            disable_log_stats=True,
            seed=0,
        )
        self.engine = self.llm.llm_engine
        self.number = 0
        with open("/proc/self/maps", encoding="utf-8") as file:
            loaded = ", tcmalloc preloaded" if "tcmalloc" in file.read() else ""
        return {"version": f"vLLM {vllm.__version__}{', eager' if variant else ''}{loaded}", "keeps_prefixes": True}

    def flush(self):
        """Forget all prefixes."""
        self.llm.reset_prefix_cache()

    def generate(self, prompts: list, output: int, samples: int):
        """Greedy, or drawn at temperature 1 where there are several samples."""
        params = self.SamplingParams(
            n=samples,
            temperature=0.0 if samples == 1 else 1.0,
            seed=None if samples == 1 else 0,
            max_tokens=output,
            min_tokens=output,
            ignore_eos=True,
            detokenize=False,
        )
        started = time.perf_counter()
        names = self._enter(prompts, params)
        found: dict = {}
        cached = 0
        while self.engine.has_unfinished_requests():
            outputs = self.engine.step()
            now = time.perf_counter() - started
            for one in outputs:
                for sample in one.outputs:
                    ids, times = found.setdefault((one.request_id, sample.index), ([], []))
                    new = list(sample.token_ids)[len(ids) :]
                    ids += new
                    times += [now] * len(new)
                if one.finished:
                    cached += one.num_cached_tokens or 0
        seconds = time.perf_counter() - started
        sequences = [found[name, i] for name in names for i in range(samples)]
        computed = sum(map(len, prompts)) - cached
        return {
            "seconds": seconds,
            "sequences": [{"ids": ids, "times": times} for ids, times in sequences],
            "cached": cached,
            "computed": computed,
        }

    def _enter(self, prompts: list, params) -> list:
        names = []
        for prompt in prompts:
            self.number += 1
            names.append(str(self.number))
            self.engine.add_request(names[-1], {"prompt_token_ids": prompt}, params)
        return names

    def score(self, prompts: list, choices: list):
        """Log-probabilities of prompt tokens, one request a choice: vLLM's way to score a given text."""
        params = self.SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False, ignore_eos=True)
        whole = [prompt + choice for prompt in prompts for choice in choices]
        started = time.perf_counter()
        names = self._enter(whole, params)
        found = {}
        while self.engine.has_unfinished_requests():
            for one in self.engine.step():
                if one.finished:
                    found[one.request_id] = one.prompt_logprobs
        seconds = time.perf_counter() - started
        flat = []
        for name, ids, choice in zip(names, whole, list(choices) * len(prompts), strict=True):
            begin = len(ids) - len(choice)
            flat.append([found[name][begin + i][token].logprob for i, token in enumerate(choice)])
        step = len(choices)
        return {"seconds": seconds, "scores": [flat[i : i + step] for i in range(0, len(flat), step)]}
