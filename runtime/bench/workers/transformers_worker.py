"""transformers as its documentation shows it: `generate`, sdpa, bf16; a padded batch, or one prompt after the other."""

from __future__ import annotations

import time
from typing import Any


class Peer:
    """See `main.py`. Keeps no prefix from one call to the next: every run is cold."""

    def start(self, model: str, threads: int, dtype: str, variant: str = "", **_):
        """variant: "" (one padded batch) or "one"."""
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch, self.hf = torch, transformers
        self.together = variant != "one"
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
        self.model = loaded.eval()
        self.model.generation_config.pad_token_id = 0
        how = "one padded batch" if self.together else "one prompt after the other"
        return {"version": f"transformers {transformers.__version__}, {how}", "keeps_prefixes": False}

    def flush(self):
        """Nothing is kept."""

    def generate(self, prompts: list, output: int, samples: int):
        """Greedy, or drawn at temperature 1 where there are several samples."""
        started = time.perf_counter()
        groups = [prompts] if self.together else [[one] for one in prompts]
        sequences = [one for group in groups for one in self._generate(group, output, samples, started)]
        return {"seconds": time.perf_counter() - started, "sequences": sequences}

    def _generate(self, prompts: list, output: int, samples: int, started: float):
        torch = self.torch
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(one)) + one for one in prompts])
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])
        times = []

        def note(input_ids, scores, **_):
            times.append(time.perf_counter() - started)
            return torch.zeros(input_ids.shape[0], dtype=torch.bool)

        drawn = {"do_sample": False} if samples == 1 else {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        with torch.inference_mode():
            out = self.model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=output,
                min_new_tokens=output,
                num_return_sequences=samples,
                stopping_criteria=self.hf.StoppingCriteriaList([note]),
                **drawn,
            )
        return [{"ids": row[width:].tolist(), "times": times} for row in out]

    def score(self, prompts: list, choices: list):
        """A forward pass a prompt, its choices as a padded batch."""
        torch = self.torch
        started = time.perf_counter()
        scores = []
        for prompt in prompts:
            keep = max(map(len, choices))
            rows = [prompt + choice + [0] * (keep - len(choice)) for choice in choices]
            mask = [[1] * (len(prompt) + len(choice)) + [0] * (keep - len(choice)) for choice in choices]
            with torch.inference_mode():
                logits = self.model(torch.tensor(rows), attention_mask=torch.tensor(mask), logits_to_keep=keep + 1).logits
            logs = logits.float().log_softmax(-1)
            scores.append([[float(logs[i, at, token]) for at, token in enumerate(c)] for i, c in enumerate(choices)])
        return {"seconds": time.perf_counter() - started, "scores": scores}
