"""A checkpoint's name -> its folder -> a checked list of its tensors. Nothing long happens before all of this is known."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import ModelError, ModelNotFound
from .config import read_config

INDEX = "model.safetensors.index.json"
_SMALL_FILES = ["*.json", "*.jinja", "*.txt", "tokenizer.model"]
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LISTED = 8


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a checkpoint: the shard it is in, its shape, and its safetensors dtype word (F32, BF16, ...)."""

    shard: Path
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Checkpoint:
    """All tensors of a folder by name, and its shards in order."""

    folder: Path
    shards: tuple[Path, ...]
    tensors: dict[str, TensorEntry]


def resolve_checkpoint(name: str | Path, *, weights: bool = True) -> Path:
    """The folder of a checkpoint: `name` itself, or the local copy of a hub id (owner/model), downloaded where needed.

    weights: whether they are downloaded as well.
    Raises ModelNotFound if there is no such folder and no such hub id, or no network to look for it; ModelError for a hub id
    whose configuration is not supported.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelNotFound(f"{folder} is a file. Name the folder that holds config.json and the .safetensors files.")
    if not (isinstance(name, str) and _HUB_ID.fullmatch(name)):
        raise ModelNotFound(f"There is no folder {folder}. Name a Hugging Face checkpoint's folder, or a hub id (owner/model).")
    return _download(name, ["*.safetensors", *_SMALL_FILES] if weights else _SMALL_FILES)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Finds the shards, and reads and checks their headers. Raises ModelError; reads no tensor data."""
    indexed = _read_index(folder / INDEX) if (folder / INDEX).is_file() else None
    names = sorted(set(indexed.values())) if indexed is not None else [_only_file(folder)]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder} lacks {listed(missing)}, named by {INDEX}. Download the missing shards.")
    tensors: dict[str, TensorEntry] = {}
    for name in names:
        for tensor, entry in _read_header(folder / name):
            if tensor in tensors:
                raise ModelError(f"{folder}: tensor {tensor} is in both {tensors[tensor].shard.name} and {name}.")
            tensors[tensor] = entry
    if indexed is not None:
        absent = [f"{tensor} ({name})" for tensor, name in indexed.items() if _shard_name(tensors, tensor) != name]
        if absent:
            raise ModelError(f"{folder}: {INDEX} names tensors that their files lack: {listed(absent)}. Download it again.")
    return Checkpoint(folder, tuple(folder / name for name in names), tensors)


def _shard_name(tensors: dict[str, TensorEntry], tensor: str) -> str | None:
    return tensors[tensor].shard.name if tensor in tensors else None


def _read_index(path: Path) -> dict[str, str]:
    """The index's map from tensor to file. Only plain names of files in the folder are accepted."""
    try:
        weight_map: Any = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        pairs = [(str(tensor), str(name)) for tensor, name in weight_map.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is not an index of shards ({error!r}). Download it again.") from error
    for _, name in pairs:
        if PurePosixPath(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise ModelError(f"{path} names {name!r}. A shard must be a .safetensors file in the checkpoint's own folder.")
    if not pairs:
        raise ModelError(f"{path} names no tensors. Download it again.")
    return dict(pairs)


def _only_file(folder: Path) -> str:
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    if "model.safetensors" in files:
        return "model.safetensors"
    if len(files) == 1:
        return files[0]
    if files:
        raise ModelError(f"{folder} has {len(files)} .safetensors files but no {INDEX}, which says what is where. Download it.")
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
    if pickled:
        raise ModelError(
            f"{folder} has only pickled weights ({listed(pickled)}), which can run code when loaded and are refused. Convert "
            "them to safetensors (for instance with transformers: save_pretrained writes safetensors)."
        )
    raise ModelError(f"{folder} has no .safetensors file. Download the checkpoint's weights into it.")


def _read_header(path: Path) -> Iterator[tuple[str, TensorEntry]]:
    try:
        with safe_open(path, framework="numpy") as file:  # for the header alone; "pt" would load torch
            for name in file.keys():
                part = file.get_slice(name)
                yield name, TensorEntry(path, tuple(part.get_shape()), str(part.get_dtype()))
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise ModelError(f"{path} ({size} bytes) is truncated or damaged: {error}. Download it again.") from error


def _download(name: str, wanted: list[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelNotFound(
            f"There is no folder {name}. If it is a hub id: install huggingface_hub to download it, or name a local folder."
        ) from error
    try:
        # The small files first: a model that is not supported is refused before its weights are downloaded.
        read_config(Path(snapshot_download(name, allow_patterns=["*.json"])))
        return Path(snapshot_download(name, allow_patterns=wanted))
    except ModelError:
        raise
    except Exception as error:  # the hub client's own errors and those of whichever HTTP library it is built on
        reason = str(error).strip().splitlines()
        raise ModelNotFound(
            f"There is no folder {name}, and it could not be fetched as a hub id ({type(error).__name__}: "
            f"{reason[0] if reason else 'no reason given'}). Check the name and the network, or name a local folder."
        ) from error


def listed(names: list[str]) -> str:
    """A few names and the number of the others."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
