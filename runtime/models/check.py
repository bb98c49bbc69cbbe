"""Is a checkpoint whole, and do its parts fit? Answered from its small files and headers, without torch, in milliseconds.

The caller's process asks before it starts an engine; the engine asks again before it reads weights.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelError
from .checkpoint import Checkpoint, TensorEntry, listed, open_checkpoint
from .config import ModelConfig, check_tokenizer, read_config
from .spec import Parameter, parameters, unused

_FLOATS = frozenset(("F32", "BF16", "F16"))


def check_checkpoint(
    folder: Path, tokenizer_size: int | None = None, *, load_format: str = "auto"
) -> tuple[ModelConfig, Checkpoint]:
    """The checkpoint's configuration and list of tensors. Raises ModelError for anything that keeps it from being loaded.

    tokenizer_size: number of ids that the tokenizer knows, checked against the embedding. load_format: dummy needs no weights;
    the list is then of the tensors that the configuration asks for, in no shard.
    """
    config = read_config(folder)
    checkpoint = without_weights(folder, config) if load_format == "dummy" else open_checkpoint(folder)
    check_tensors(config, checkpoint, parameters(config))
    if tokenizer_size is not None:
        check_tokenizer(config, tokenizer_size)
    return config, checkpoint


def without_weights(folder: Path, config: ModelConfig) -> Checkpoint:
    """All tensors that the model needs, in no shard: they are to be drawn. Pure."""
    parts = (part for parameter in parameters(config) for part in (*parameter.weights, *parameter.biases))
    return Checkpoint(folder, (), {part.name: TensorEntry(folder, part.shape, "BF16") for part in parts})


def check_tensors(config: ModelConfig, checkpoint: Checkpoint, wanted: list[Parameter]) -> None:
    """Names, shapes and dtypes of all tensors against what the model needs. Raises one ModelError that lists what is wrong."""
    parts = {part.name: part for parameter in wanted for part in (*parameter.weights, *parameter.biases)}
    found = checkpoint.tensors
    missing = [name for name in parts if name not in found]
    surplus = [name for name in found if name not in parts and not unused(config, name)]
    shapes = [
        f"{name} is {list(found[name].shape)}, not {list(part.shape)}"
        for name, part in parts.items()
        if name in found and found[name].shape != part.shape
    ]
    dtypes = [f"{name} is {found[name].dtype}" for name in parts if name in found and found[name].dtype not in _FLOATS]
    problems = [
        f"{len(names)} {what}: {listed(names)}"
        for what, names in (
            ("tensors are missing", missing),
            ("tensors belong to nothing in this architecture", surplus),
            ("tensors have another shape than config.json says", shapes),
            ("tensors are not floating point (F32, BF16, F16)", dtypes),
        )
        if names
    ]
    if problems:
        raise ModelError(
            f"{checkpoint.folder}: the weights do not fit {config.architecture}. " + ". ".join(problems) + ". Check that "
            "config.json and the shards come from the same checkpoint, and download what is missing."
        )
