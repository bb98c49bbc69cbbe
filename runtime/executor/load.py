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
from ..config import (
    COMPILING,
    Config,
    EngineOptions,
    Hardware,
    ModelFacts,
    choose_dtype,
    choose_kv_dtype,
    kernel_cache,
    resolve,
    validate,
)
from ..models.checkpoint import resolve_checkpoint
from ..models.config import ModelConfig, check_tokenizer, read_config
from ..models.decoder import Decoder
from ..models.weights import load_decoder
from .executor import TorchExecutor
from .graphs import CudaRecorder
from .kv_pool import KVPool
from .memory import keep_freed_memory, model_facts, probe, weight_bytes
from .peak import peak_bytes

BUNDLED = Path(__file__).parents[1] / "bundled" / "model"
"""The default model's folder."""

WARMING = "GPU kernels"
"""The phase in which the largest steps are run, and with them kernels are compiled that nobody has compiled before."""

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


def find_model(options: EngineOptions) -> Path:
    """The folder of the model that was named, the bundled one if none was. Raises ModelNotFound or ModelError."""
    return resolve_checkpoint(BUNDLED if options.model is None else options.model, weights=options.load_format != "dummy")


def load_executor(options: EngineOptions, *, tokenizer_size: int | None = None, progress: Progress | None = None) -> Loaded:
    """Loads the model and makes room for its KV. What is wrong with options or checkpoint is raised before weights are read:
    InvalidRequest, ModelError, ModelNotFound. Sets torch's number of threads, for the whole process.

    tokenizer_size: number of ids that the tokenizer knows, checked against the model's embedding.
    """
    began = time.perf_counter()
    report = progress or (lambda phase, share: None)
    validate(options)
    folder = find_model(options)
    model = read_config(folder)
    if tokenizer_size is not None:
        check_tokenizer(model, tokenizer_size)
    facts = model_facts(model)
    before = probe(options.device)
    dtype = DTYPES[choose_dtype(options.dtype, before)]
    torch.set_num_threads(options.threads or before.cores)
    resolve(options, _less(before, weight_bytes(model, dtype, options.quantization)), facts)

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
        load_format=options.load_format,
        quantization=options.quantization,
        kv_dtype=kv_dtype,
        costs=costs,
        progress=lambda done, total: report("weights", done / max(total, 1)),
        native=native,
        max_positions=options.context_length,
        deterministic=options.deterministic,
    )
    if measured:
        decoder.kernels.reasons.append(measured)
    if device.type == "cpu":
        keep_freed_memory()
    report("KV pool", 0.0)
    hardware = probe(options.device)
    config = resolve(options, hardware, facts)
    if device.type == "cuda":
        hardware, config = _beside_steps(decoder, options, config, facts, report)
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
        record=CudaRecorder(device) if config.cuda_graphs else None,
    )
    report("KV pool", 1.0)
    executor.warm(lambda done, total: report("CUDA graphs", done / total))
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


def _beside_steps(
    decoder: Decoder, options: EngineOptions, config: Config, facts: ModelFacts, report: Progress
) -> tuple[Hardware, Config]:
    """The GPU as it is when the largest steps have what they need, and what is decided then."""
    report(WARMING, 0.0)
    schedule = config.schedule
    taken = peak_bytes(
        decoder,
        chunk_tokens=min(schedule.chunk_tokens, schedule.context_length),
        max_rows=schedule.max_running,
        page_size=config.cache.page_size,
    )
    report(WARMING, 1.0)
    hardware = _less(probe(options.device), taken)
    return hardware, resolve(options, hardware, facts)


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


def _less(hardware: Hardware, taken: int) -> Hardware:
    """The machine when that many bytes of its memory are taken: what does not fit then is refused before weights are read."""
    free = max(hardware.memory_free - taken, 0)
    return Hardware(device=hardware.device, memory_free=free, cores=hardware.cores, bf16=hardware.bf16)
