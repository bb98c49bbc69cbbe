"""From what the user said to an executor that is ready: checkpoint -> configuration -> decoder -> pool -> executor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ...kernels.attention.calibrate import calibrate
from ...kernels.attention.costs import DEFAULT_COSTS, SharingCosts
from ...kernels.attention.interface import AttentionSpec
from ...kernels.attention.native import refusal
from ...kernels.native import NONE, Native, load
from ..config import COMPILING, Config, EngineOptions, Hardware, choose_dtype, choose_kv_dtype, kernel_cache, resolve, validate
from ..models.checkpoint import resolve_checkpoint
from ..models.config import ModelConfig, check_tokenizer, read_config
from ..models.weights import load_decoder
from .executor import TorchExecutor
from .kv_pool import KVPool
from .memory import keep_freed_memory, model_facts, probe, weight_bytes

BUNDLED = Path(__file__).parents[1] / "bundled" / "model"
"""The default model's folder."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}

Progress = Callable[[str, float], None]
"""Called with what is being done, and how much of it is: 0 to 1."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An executor and what people and the other parts must know of it. kernels: what was chosen and why, a line each.

    parameters: weights, tied ones once. kv_bytes: the pool's, all of it in use. load_s: seconds from the call to the return.
    """

    executor: TorchExecutor
    config: Config
    model: ModelConfig
    hardware: Hardware
    folder: Path
    parameters: int
    kv_bytes: int
    kernels: tuple[str, ...]
    load_s: float


def find_model(model: str | None) -> Path:
    """The folder of the model that was named, the bundled one if none was. Raises ModelNotFound or ModelError."""
    return resolve_checkpoint(BUNDLED if model is None else model)


def load_executor(options: EngineOptions, *, tokenizer_size: int | None = None, progress: Progress | None = None) -> Loaded:
    """Loads the model and makes room for its KV. What is wrong with options or checkpoint is raised before weights are read:
    InvalidRequest, ModelError, ModelNotFound. Sets torch's number of threads, for the whole process.

    tokenizer_size: number of ids that the tokenizer knows, checked against the model's embedding.
    """
    began = time.perf_counter()
    report = progress or (lambda phase, share: None)
    validate(options)
    folder = find_model(options.model)
    model = read_config(folder)
    if tokenizer_size is not None:
        check_tokenizer(model, tokenizer_size)
    facts = model_facts(model)
    before = probe(options.device)
    dtype = DTYPES[choose_dtype(options.dtype, before)]
    torch.set_num_threads(options.threads or before.cores)
    resolve(options, _after_loading(before, weight_bytes(model, dtype, options.quantization)), facts)

    device, kv_dtype = torch.device(before.device), DTYPES[choose_kv_dtype(options, before)]
    native = _native_kernels(device, report)
    costs, measured = DEFAULT_COSTS, ""
    if native.available and options.tree_attention:
        costs, measured = _sharing_costs(model, dtype, kv_dtype)
    report("weights", 0.0)
    decoder = load_decoder(
        folder,
        device=device,
        dtype=dtype,
        quantization=options.quantization,
        kv_dtype=kv_dtype,
        costs=costs,
        progress=lambda done, total: report("weights", done / max(total, 1)),
        native=native,
    )
    if measured:
        decoder.kernels.reasons.append(measured)
    if device.type == "cpu":
        keep_freed_memory()
    report("KV pool", 0.0)
    hardware = probe(options.device)
    config = resolve(options, hardware, facts)
    pool = KVPool(
        decoder.kv_spec,
        num_pages=config.cache.num_pages,
        page_size=config.cache.page_size,
        device=device,
        copy=decoder.kernels.kv_copy_pages,
    )
    schedule = config.schedule
    executor = TorchExecutor(
        decoder,
        pool=pool,
        max_rows=schedule.max_running,
        context_length=schedule.context_length,
        tree_attention=config.tree_attention,
    )
    report("KV pool", 1.0)
    return Loaded(
        executor=executor,
        config=config,
        model=model,
        hardware=hardware,
        folder=folder,
        parameters=facts.weight_values,
        kv_bytes=pool.num_bytes,
        kernels=tuple(decoder.kernels.reasons),
        load_s=time.perf_counter() - began,
    )


def _native_kernels(device: torch.device, report: Progress) -> Native:
    """The C++ kernels for a CPU; compiled, which is seen, where nobody has done so before."""
    if device.type != "cpu":
        return NONE
    compiling: list[str] = []

    def begin() -> None:
        compiling.append(COMPILING)
        report(COMPILING, 0.0)

    loaded = load(kernel_cache(), begin)
    for name in compiling:
        report(name, 1.0)
    return loaded


def _sharing_costs(model: ModelConfig, dtype: torch.dtype, kv_dtype: torch.dtype) -> tuple[SharingCosts, str]:
    """By which attention decides what it reads together, and a line for people; "" where there is no native attention."""
    spec = AttentionSpec(model.num_heads, model.num_kv_heads, model.head_dim, model.head_dim**-0.5)
    return (DEFAULT_COSTS, "") if refusal(spec) else calibrate(spec, dtype, kv_dtype)


def _after_loading(hardware: Hardware, weight_bytes: int) -> Hardware:
    """The machine as it will be when the weights are there: what does not fit is refused before they are read."""
    free = max(hardware.memory_free - weight_bytes, 0)
    return Hardware(device=hardware.device, memory_free=free, cores=hardware.cores, bf16=hardware.bf16)
