"""Question: how many tokens a second does continuous batching of Hugging Face transformers give the requests of g1?

The same shape (random bf16 weights), prompts, numbers of tokens and temperature as `offline`, and no end-of-text token. The
rest is its own default: memory, tokens of a step, whether CUDA graphs are used. Two attentions that need no further package:
`flash` gives its way of FlashAttention (packed sequences, no mask) the kernel within torch; `sdpa`, with a mask over all
sequences together, is what it takes by itself where no FlashAttention is installed. `--engine attention=sdpa` runs one of them.

After the time limit its loop is ended, and the tokens made until then count, over the time until then.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F

from .offline import Requests, bound_s, mixed
from .setting import Line, Setting, freed, scenario

FLASH = "paged|torch_flash"
"""Name under which the attention is registered. transformers treats what has "flash" in its name as FlashAttention: no mask,
and CUDA graphs. Version 5.17 puts "paged|" before a name that lacks it and looks for a package; 5.23 takes it away."""
ATTENTIONS = {"flash": FLASH, "sdpa": "sdpa"}
LEAST_S = 5.0
"""With less time left, no attention and no further run begins."""


@dataclass(frozen=True)
class Packed:
    """Sequences one after the other. queries, keys: where each ends, int32 [sequences + 1] from 0; the queries are the last
    tokens of theirs. most: queries and keys of the longest, or more."""

    queries: torch.Tensor
    keys: torch.Tensor
    most: tuple[int, int]


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: Packed, scale: float | None) -> torch.Tensor:
    """Causal attention within each sequence. query and result: [tokens, heads, dim]; key, value: [tokens, kv heads, dim]."""
    if not query.is_cuda:
        return one_by_one(query, key, value, packed, scale)
    ends = packed.queries, packed.keys
    return torch.ops.aten._flash_attention_forward(
        query, key, value, *ends, *packed.most, 0.0, is_causal=True, return_debug_mask=False, scale=scale
    )[0]


def one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packed: Packed,
    scale: float | None,
) -> torch.Tensor:
    """The same in plain torch, for a CPU and as a reference."""
    out = torch.zeros_like(query)
    (first, *rows), (at, *columns) = packed.queries.tolist(), packed.keys.tolist()
    for row, column in zip(rows, columns, strict=True):
        if row > first:
            q, k, v = (x.transpose(0, 1) for x in (query[first:row], key[at:column], value[at:column]))
            seen = torch.ones(row - first, column - at, dtype=torch.bool, device=query.device).tril(column - at - (row - first))
            out[first:row] = F.scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=True).transpose(0, 1)
        first, at = row, column
    return out


def check(device: str, heads: tuple[int, int], dim: int) -> None:
    """Raises RuntimeError where the device's kernel is not `one_by_one`, on a few ragged sequences, an empty one among them."""
    ends = [0, 5, 6, 70, 70], [0, 5, 306, 400, 400]
    queries, keys = (torch.tensor(one, dtype=torch.int32, device=device) for one in ends)
    query = torch.randn(ends[0][-1], heads[0], dim, dtype=torch.bfloat16, device=device)
    key, value = torch.randn(2, ends[1][-1], heads[1], dim, dtype=torch.bfloat16, device=device)
    packed = Packed(queries, keys, (64, 1024))
    most = float((attend(query, key, value, packed, None) - one_by_one(query, key, value, packed, None)).abs().max())
    if not most < 0.1:
        raise RuntimeError(f"The kernel of torch is {most} away from what it should give.")


def attention_of_torch(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object,
    scaling: float | None = None,
    *,
    cache: Any,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """`attend` as transformers calls an attention function of a paged cache. query, key and value: [1, heads, tokens, dim]. The
    cache's interface differs from one version to another."""
    new = {"key_states": key, "value_states": value, "layer_idx": module.layer_idx}
    if "max_length_q" in given:
        key, value = cache.update(**new, kwargs=given)
        key, value = (x[0].transpose(0, 1) for x in (key, value))
        most = given["max_length_q"], given["max_length_k"]
    else:
        key, value = cache.update(**new, read_index=given["read_index"], write_index=given["write_index"])
        most = given["max_seqlen_q"], given["max_seqlen_k"]
    ends = given["cu_seq_lens_q"].to(torch.int32), given["cu_seq_lens_k"].to(torch.int32)
    packed = Packed(*ends, most)
    return attend(query[0].transpose(0, 1).contiguous(), key.contiguous(), value.contiguous(), packed, scaling)[None], None


def build(setting: Setting, hf: Any) -> Any:
    """The model with random weights, drawn on the device."""
    for name in (FLASH, FLASH.removeprefix("paged|")):
        hf.AttentionInterface.register(name, attention_of_torch)
    known = import_module("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS
    if known.get_interface(FLASH, None) is not attention_of_torch:  # another one would be taken, silently
        raise RuntimeError(f"transformers {hf.__version__} does not find {FLASH!r}.")
    config = hf.AutoConfig.from_pretrained(setting.model())
    torch.manual_seed(0)
    with torch.device(setting.device):
        return hf.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").eval()


def manager_of(model: Any, hf: Any, attention: str, asked: Requests) -> Any:
    """What its `generate_batch` makes for these requests, started and warmed up. attention: name that transformers knows."""
    model.config._attn_implementation = attention  # its set_attn_implementation would look for a package of that name
    on_cpu = model.device.type == "cpu"
    sizes = {"num_blocks": 64, "max_batch_tokens": 256} if on_cpu else {}  # its default would be most of the machine's memory
    sampled = hf.GenerationConfig(do_sample=True, temperature=0.6, top_k=0, top_p=1.0, eos_token_id=-1, pad_token_id=0)
    batching = import_module("transformers.generation.continuous_batching.utils")
    hints = batching.WorkloadHints(max(map(len, asked.prompts)), max(asked.outputs), len(asked.prompts))
    manager = model.init_continuous_batching(
        generation_config=sampled,
        continuous_batching_config=hf.ContinuousBatchingConfig(seed=0, **sizes),
        workload_hints=hints,
    )
    manager.warmup()
    manager.start()
    return manager


def at_once(manager: Any, asked: Requests, limit_s: float) -> tuple[float, int, int]:
    """Seconds, tokens generated and requests that came to their end; after `limit_s` the manager is stopped for good. Raises
    RuntimeError where a request failed."""
    outputs: list[Any] = []
    started = time.perf_counter()
    for prompt, output in zip(asked.prompts, asked.outputs, strict=True):
        manager.add_request(list(prompt), max_new_tokens=output)
    while len(outputs) < len(asked.prompts) and (left := started + limit_s - time.perf_counter()) > 0:
        one = manager.get_result(timeout=min(left, 1.0))
        if one is not None:
            if one.error:
                raise RuntimeError(f"A request failed: {one.error}")
            outputs.append(one)
        elif not manager.is_running():
            raise RuntimeError("Its thread has ended.")
    seconds, ended = time.perf_counter() - started, len(outputs)
    if ended < len(asked.prompts):
        manager.stop(block=True, hard_stop=True)
        while (one := manager.get_result(timeout=0)) is not None:
            outputs.append(one)
            ended += not one.error
        seconds = max(one.lifespan[1] for one in outputs) - started  # the end of its last step
    return seconds, sum(len(one.generated_tokens) for one in outputs), ended


def run(setting: Setting) -> Iterator[Line]:
    """A line for each attention and run, after a short one that does not count."""
    if find_spec("transformers") is None:
        print("Skipped: transformers is not installed.")
        return
    hf: Any = import_module("transformers")
    if not hasattr(hf, "ContinuousBatchingConfig"):
        print(f"Skipped: transformers {hf.__version__} has no continuous batching.")
        return
    hf.utils.logging.set_verbosity_error()
    count, least, most = (6, 4, 16) if setting.quick else (256, 100, 1024)
    asked = mixed(count, least, most, setting.shape.vocab)
    model = build(setting, hf)
    only = setting.settings.get("attention")
    failed = []
    for attention in [only] if only else ATTENTIONS:
        if setting.left_s < LEAST_S:
            print(f"No time was left for {attention}.")
            break
        try:
            with freed():
                yield from runs(setting, hf, model, attention, asked)
        except Exception as error:  # what one cannot do keeps the other from nothing
            traceback.print_exc()
            failed.append(f"{attention}: {error}")
    if failed:
        raise RuntimeError("; ".join(failed))


def runs(setting: Setting, hf: Any, model: Any, attention: str, asked: Requests) -> Iterator[Line]:
    """With one attention. Prompts differ from one run to the next, not in their lengths, so that none is found in its cache."""
    count, vocab = len(asked.prompts), setting.shape.vocab
    if attention == "flash":
        check(setting.device, setting.shape.heads, setting.shape.head_dim)
    bound = bound_s(setting.bounds, asked)
    manager = manager_of(model, hf, ATTENTIONS[attention], asked)
    try:
        first = mixed(min(count, 32), min(map(len, asked.prompts)), max(map(len, asked.prompts)), vocab, 1)
        at_once(manager, replace(first, outputs=(8,) * len(first.prompts)), max(setting.left_s, 1.0))
        for number in range(setting.repeats):
            if setting.left_s < LEAST_S or not manager.is_running():
                print(f"No time was left for run {number} of {attention}.")
                return
            before = manager.current_batch
            prompts = tuple(tuple((token + number) % vocab for token in prompt) for prompt in asked.prompts)
            seconds, made, ended = at_once(manager, replace(asked, prompts=prompts), setting.left_s)
            whole = made == sum(asked.outputs)
            yield {
                "run": number,
                "tokens/s": made / seconds,
                "seconds": seconds,
                "output": made,
                "prompt": sum(map(len, asked.prompts)),
                "steps": manager.current_batch - before,
                "of bound": bound / seconds if whole else None,
                "ended": "all" if whole else f"{ended} of {count}: not finished",
                "attention": attention,
                "graphs": any(manager.continuous_batching_config.cuda_graph_booleans),
                "peer": f"transformers {hf.__version__}",
            }
    finally:
        if manager.is_running():
            manager.stop(block=True, timeout=5, hard_stop=True)


def main(argv: list[str]) -> int:
    """Run it."""
    return scenario("g1-peer", argv, __doc__, run)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
