"""Configuration, resolved once: what the user said, what the machine and the model allow, and what follows.

`resolve` is pure: said x hardware x model -> Config, or an error that says what does not fit. Each part receives its own
piece. Environment variables are read here alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from .errors import InvalidRequest

COMPILING = "compiling the CPU kernels, once"
"""The phase of a start that may take half a minute."""
POLICIES = ("lru", "lfu", "fifo")
SCHEDULES = ("prefix", "fcfs", "priority")
TOOL_CALL_PARSERS = ("auto", "none", "hermes", "llama3_json", "mistral", "mistral_args", "pythonic")
REASONING_PARSERS = ("auto", "none")
QUANTIZATIONS = {"int8": "cpu", "int4": "cpu", "fp8": "cuda"}
"""Of weights, and the device that computes with them."""
KV_DTYPES = ("auto", "int8")
LOAD_FORMATS = ("auto", "dummy")
SCALE_BYTES = 2
"""Of a K or V vector in int8 (`kernels/kv/int8.py`, which a configuration must not import)."""


class EngineOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the user may say about an engine; None means: choose for me. Travels to the engine process as it is.

    model: checkpoint folder, hub id, or None for the bundled model. device: auto | cpu | cuda. dtype: auto | float32 | bfloat16.
    load_format: auto (safetensors) | dummy: the checkpoint's config and tokenizer alone, with weights that are drawn at random.
    quantization: of the weights of linear layers, as they are loaded: int8 | int4 on the CPU, fp8 (and of what is multiplied with
    them) on CUDA; None: they stay in dtype.
    kv_dtype: auto (as dtype) | int8, of K and V in the pool, on the CPU.
    kv_tokens: size of the KV pool in tokens, or mem_fraction: its share of the memory that is free once the model is loaded.
    max_running: sequences decoded together. chunk_tokens: tokens that one step may prefill. context_length: below the model's.
    threads: of torch. page_size: tokens a page. eviction: lru | lfu | fifo. schedule: prefix | fcfs | priority.
    generation_defaults: take sampling defaults from generation_config.json. queue: requests that may wait.
    depth: steps in flight (1 on the CPU, 2 on CUDA). jump_forward: tokens that a constraint forces are computed together; what is
    generated is the same without it. tree_attention: K and V that rows share are read once for all of them. cuda_graphs: steps of
    few tokens are recorded and replayed, on CUDA. deterministic: results have the same bits in any company and with any cache on
    CUDA too, where it costs speed; on the CPU they always have. grammar_cache: compiled constraints are kept in the user's cache
    folder, for later starts. tool_call_parser: the form of the model's function calls (a name of server/formats/detect.py, or
    none), reasoning_parser: auto | none; by default the chat template tells.
    """

    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    load_format: str = "auto"
    quantization: str | None = None
    kv_dtype: str = "auto"
    kv_tokens: int | None = None
    mem_fraction: float | None = None
    max_running: int | None = None
    chunk_tokens: int | None = None
    context_length: int | None = None
    threads: int | None = None
    page_size: int | None = None
    eviction: str = "lru"
    schedule: str = "prefix"
    generation_defaults: bool = True
    queue: int = 1024
    depth: int | None = None
    jump_forward: bool = True
    tree_attention: bool = True
    cuda_graphs: bool = True
    deterministic: bool = False
    grammar_cache: bool = True
    tool_call_parser: str = "auto"
    reasoning_parser: str = "auto"


class Hardware(msgspec.Struct, frozen=True):
    """The machine, as probed. memory_free: bytes, on the device. bf16: whether bfloat16 matrix products are native there."""

    device: str
    memory_free: int
    cores: int
    bf16: bool


class ModelFacts(msgspec.Struct, frozen=True):
    """What of the model decides the configuration. kv_values_token: elements of K and V a token, in vectors of head_dim."""

    context_length: int
    kv_values_token: int
    weight_values: int
    head_dim: int = 64


class CacheConfig(msgspec.Struct, frozen=True):
    """num_pages pages of page_size tokens; policy: order of eviction."""

    num_pages: int
    page_size: int
    policy: str


class ScheduleConfig(msgspec.Struct, frozen=True):
    """max_running rows; chunk_tokens a step; policy: order of admission; queue: most requests that wait; depth: steps in
    flight; jump_forward: see `EngineOptions`."""

    max_running: int
    chunk_tokens: int
    context_length: int
    policy: str
    queue: int
    depth: int
    jump_forward: bool = True


class Config(msgspec.Struct, frozen=True):
    """Everything decided. dtype: float32 | bfloat16. quantization: of `QUANTIZATIONS`. kv_dtype: float32 | bfloat16 | int8."""

    device: str
    dtype: str
    quantization: str | None
    kv_dtype: str
    threads: int
    tree_attention: bool
    cuda_graphs: bool
    deterministic: bool
    cache: CacheConfig
    schedule: ScheduleConfig


def choose_dtype(said: str, hardware: Hardware) -> str:
    """bfloat16 where the device multiplies it natively, else float32, unless said."""
    if said == "auto":
        return "bfloat16" if hardware.bf16 else "float32"
    names = {"float32": "float32", "fp32": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16"}
    if said not in names:
        raise InvalidRequest(f"dtype {said!r} is not known. Use auto, float32 or bfloat16.", param="dtype")
    return names[said]


def choose_kv_dtype(said: EngineOptions, hardware: Hardware) -> str:
    """As the model's, unless said."""
    return choose_dtype(said.dtype, hardware) if said.kv_dtype == "auto" else said.kv_dtype


def validate(said: EngineOptions) -> None:
    """Refuse what no machine or model could make right, before anything is loaded."""
    if said.eviction not in POLICIES:
        raise InvalidRequest(f"eviction {said.eviction!r} is not known. Use one of {', '.join(POLICIES)}.", param="eviction")
    if said.schedule not in SCHEDULES:
        raise InvalidRequest(f"schedule {said.schedule!r} is not known. Use one of {', '.join(SCHEDULES)}.", param="schedule")
    for name, known in (("tool_call_parser", TOOL_CALL_PARSERS), ("reasoning_parser", REASONING_PARSERS)):
        if getattr(said, name) not in known:
            text = f"{name} {getattr(said, name)!r} is not known. Use one of {', '.join(known)}."
            raise InvalidRequest(text, param=name)
    if said.quantization not in (None, *QUANTIZATIONS):
        known = ", ".join(QUANTIZATIONS)
        raise InvalidRequest(f"quantization {said.quantization!r} is not known. Use one of {known}.", param="quantization")
    if said.load_format not in LOAD_FORMATS:
        known = ", ".join(LOAD_FORMATS)
        raise InvalidRequest(f"load_format {said.load_format!r} is not known. Use one of {known}.", param="load_format")
    if said.kv_dtype not in KV_DTYPES:
        raise InvalidRequest(f"kv_dtype {said.kv_dtype!r} is not known. Use one of {', '.join(KV_DTYPES)}.", param="kv_dtype")
    if said.kv_tokens is not None and said.mem_fraction is not None:
        raise InvalidRequest("kv_tokens and mem_fraction both size the KV pool. Give one of them.", param="mem_fraction")
    if said.mem_fraction is not None and not 0 < said.mem_fraction <= 0.95:
        raise InvalidRequest(f"mem_fraction is {said.mem_fraction}; it must be above 0 and at most 0.95.", param="mem_fraction")
    for name in ("kv_tokens", "max_running", "chunk_tokens", "context_length", "threads", "page_size", "queue"):
        value = getattr(said, name)
        if value is not None and value < 1:
            raise InvalidRequest(f"{name} is {value}; it must be at least 1.", param=name)
    if said.page_size is not None and said.page_size & (said.page_size - 1):
        raise InvalidRequest(f"page_size is {said.page_size}; it must be a power of two.", param="page_size")
    if said.depth not in (None, 1, 2):
        raise InvalidRequest(f"depth is {said.depth}; it must be 1 or 2.", param="depth")
    if said.device not in ("auto", "cpu", "cuda"):
        raise InvalidRequest(f"device {said.device!r} is not known. Use auto, cpu or cuda.", param="device")


def resolve(said: EngineOptions, hardware: Hardware, model: ModelFacts) -> Config:
    """The one place where defaults are chosen. Pure. Raises InvalidRequest where what was said does not fit."""
    validate(said)
    dtype = choose_dtype(said.dtype, hardware)
    on_gpu = hardware.device == "cuda"
    if said.quantization is not None and QUANTIZATIONS[said.quantization] != hardware.device:
        device = QUANTIZATIONS[said.quantization]
        where = "the CPU" if device == "cpu" else "NVIDIA GPUs"
        raise InvalidRequest(
            f"quantization {said.quantization} works on {where} only. Give device {device}, or leave it out.",
            param="quantization",
        )
    if said.quantization == "fp8" and dtype != "bfloat16":
        raise InvalidRequest("quantization fp8 works beside bfloat16 only. Give that as dtype.", param="dtype")
    if said.quantization == "fp8" and said.deterministic:
        raise InvalidRequest("quantization fp8 is not deterministic: leave out one of the two.", param="deterministic")
    if on_gpu and said.kv_dtype != "auto":
        raise InvalidRequest(
            f"kv_dtype {said.kv_dtype} works on the CPU only. Give device cpu, or leave it out.", param="kv_dtype"
        )
    kv_dtype = choose_kv_dtype(said, hardware)
    page_size = said.page_size or (16 if on_gpu else 1)
    context = said.context_length or model.context_length
    if context > model.context_length:
        raise InvalidRequest(
            f"context_length is {context}, but this model was made for {model.context_length}. Give at most that.",
            param="context_length",
        )
    max_running = said.max_running or 256 if on_gpu else said.max_running or 64
    token_bytes = kv_bytes(model, kv_dtype)
    if said.kv_tokens is not None:
        num_tokens = said.kv_tokens
    else:
        # On the CPU the pool is taken as it is used, yet a laptop has other things to do: a quarter of what is free,
        # and never more than every row could use twice.
        share = said.mem_fraction or (0.95 if on_gpu else 0.25)
        num_tokens = int(hardware.memory_free * share) // token_bytes
        if said.mem_fraction is None and not on_gpu:
            num_tokens = min(num_tokens, 2 * max_running * context)
    num_pages = num_tokens // page_size
    if num_pages * page_size < 16 or num_pages < 2:
        raise InvalidRequest(
            f"The KV pool would hold {num_pages * page_size} tokens ({token_bytes} bytes each); at least 16 tokens and two "
            f"pages are needed. Raise kv_tokens or mem_fraction, or free memory.",
            param="kv_tokens",
        )
    return Config(
        device=hardware.device,
        dtype=dtype,
        quantization=said.quantization,
        kv_dtype=kv_dtype,
        threads=said.threads or hardware.cores,
        tree_attention=said.tree_attention,
        cuda_graphs=said.cuda_graphs and on_gpu,
        deterministic=said.deterministic or not on_gpu,
        cache=CacheConfig(num_pages=num_pages, page_size=page_size, policy=said.eviction),
        schedule=ScheduleConfig(
            max_running=max_running,
            chunk_tokens=said.chunk_tokens or (8192 if on_gpu else 512),
            context_length=context,
            policy=said.schedule,
            queue=said.queue,
            depth=said.depth or (2 if on_gpu else 1),
            jump_forward=said.jump_forward,
        ),
    )


def kv_bytes(model: ModelFacts, kv_dtype: str) -> int:
    """Bytes of K and V of a token in all layers. kv_dtype: float32 | bfloat16 | int8, whose vectors have a scale each. Pure."""
    if kv_dtype == "int8":
        return model.kv_values_token // model.head_dim * (model.head_dim + SCALE_BYTES)
    return model.kv_values_token * (2 if kv_dtype == "bfloat16" else 4)


def ramify_environment() -> dict[str, str]:
    """The `RAMIFY_*` variables, for `ramify serve`."""
    return {name: value for name, value in os.environ.items() if name.startswith("RAMIFY_")}


def kernel_cache() -> Path:
    """The folder for kernels that are compiled on this machine, within the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "ramify" / "kernels"


def grammar_cache() -> Path:
    """The folder for compiled grammars, beside that of the kernels."""
    return kernel_cache().with_name("grammars")


def child_environment() -> dict[str, str]:
    """The environment of an engine process: like this one's, but nothing is imported from the folder that it starts in,
    OpenMP's threads wait actively for a short time only, oneDNN remembers few shapes, and glibc asks for huge pages.

    Where another program takes a core, threads that spin at a barrier for the one that was preempted make decoding a hundred
    times slower; with a bounded spin it is a few per cent slower on an idle machine. oneDNN, and PyTorch above it, keep what
    they prepared for a matrix product of each number of rows, half a MiB and more in bf16, and of 1024 of them by default:
    prompts of all lengths made a process grow by half a GiB. Weights, K and V lie in megabytes that are read whole: in pages of
    2 MiB the processor finds them twice as fast where they are gathered. What the user has set stays.
    """
    spin = {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": "10000"}
    shapes = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "128"}
    pages = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    return {**spin, **shapes, **pages, **os.environ, "PYTHONSAFEPATH": "1"}
