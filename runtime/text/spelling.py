"""How a tokenizer spells: the bytes of each token, and where it slips in a space of its own.

Everything is read from the components of `tokenizer.json`. Two families exist: byte-level BPE, whose vocabulary writes each
byte as a printable character (GPT-2's table), and sentencepiece-like ones, which write a space as U+2581 and unknown bytes
as `<0xE2>`. The latter put a *dummy* space before a text; it belongs to the first token but not to the text.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import tokenizers

from ..errors import ModelError

_SPACE = "\u2581"  # how sentencepiece writes a space
_UNSUPPORTED = {"WordPiece", "CTC", "BPEDecoder"}


class Scheme(NamedTuple):
    """byte_level: tokens are written in GPT-2's byte alphabet. byte_fallback: `<0xE2>` is a byte. metaspace: U+2581 is a space.

    dummy: where a space is put before text: "" nowhere, "first" at the beginning of a prompt, "each" also after each
    control token. strips: whether decoding a whole text drops one leading space.
    """

    byte_level: bool
    byte_fallback: bool
    metaspace: bool
    dummy: str
    strips: bool


def parts(component: Any) -> list[dict[str, Any]]:
    """A normalizer, pre-tokenizer or decoder as the flat list of its JSON parts; empty for None."""
    return _flatten(json.loads(component.__getstate__())) if component is not None else []


def _flatten(state: dict[str, Any]) -> list[dict[str, Any]]:
    if state["type"] != "Sequence":
        return [state]
    inner = next(value for key, value in state.items() if key != "type")
    return [part for item in inner for part in _flatten(item)]


def scheme_of(backend: tokenizers.Tokenizer) -> Scheme:
    """The scheme of a loaded tokenizer. Raises ModelError for decoders that do not spell tokens one by one."""
    decoder, pre, normalizer = parts(backend.decoder), parts(backend.pre_tokenizer), parts(backend.normalizer)
    kinds = {part["type"] for part in decoder}
    if kinds & _UNSUPPORTED:
        raise ModelError(
            f"This tokenizer decodes with {', '.join(sorted(kinds & _UNSUPPORTED))}, which does not belong to a generating "
            "model. Supported are byte-level BPE and sentencepiece-like tokenizers."
        )
    metaspace = [part for part in pre + decoder if part["type"] == "Metaspace"]
    replaces = [part for part in decoder if part["type"] == "Replace" and part["pattern"].get("String") == _SPACE]
    strips = any(part["type"] == "Strip" and part["content"] == " " and part["start"] > 0 for part in decoder)
    strips |= any(part["type"] == "Metaspace" and part.get("prepend_scheme") != "never" for part in decoder)
    return Scheme(
        byte_level=any(part["type"] == "ByteLevel" for part in decoder + pre),
        byte_fallback="ByteFallback" in kinds,
        metaspace=bool(metaspace or replaces),
        dummy=_dummy(pre, normalizer),
        strips=strips,
    )


def _dummy(pre: list[dict[str, Any]], normalizer: list[dict[str, Any]]) -> str:
    if any(part["type"] == "Prepend" for part in normalizer):
        return "each"
    for part in pre:
        if part["type"] == "Metaspace":
            return {"always": "each", "first": "first"}.get(part.get("prepend_scheme", "always"), "")
        if part["type"] == "ByteLevel" and part.get("add_prefix_space"):
            return "each"
    return ""


def without_dummy(backend: tokenizers.Tokenizer) -> tuple[Any, Any]:
    """(normalizer, pre-tokenizer) of the same tokenizer for text that continues other text: no space is put before it."""
    normalizer = [part for part in parts(backend.normalizer) if part["type"] != "Prepend"]
    pre = parts(backend.pre_tokenizer)
    for part in pre:
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
        elif part["type"] == "ByteLevel":
            part["add_prefix_space"] = False
    return _build(normalizer, pre)


def text_normalizer(backend: tokenizers.Tokenizer) -> Any:
    """What the normalizer does to text apart from writing spaces as U+2581 (NFC, lower case); None if nothing."""
    kept = [p for p in parts(backend.normalizer) if p["type"] != "Prepend" and p.get("content") != _SPACE]
    return _build(kept, [])[0]


def _build(normalizer: list[dict[str, Any]], pre: list[dict[str, Any]]) -> tuple[Any, Any]:
    """Components from their JSON: the library reads them only as parts of a whole tokenizer, so an empty one is made."""
    whole = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizer} if normalizer else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre} if pre else None,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    built = tokenizers.Tokenizer.from_str(json.dumps(whole))
    return built.normalizer, built.pre_tokenizer


def byte_alphabet() -> dict[str, int]:
    """GPT-2's table, character to byte: printable bytes are themselves, the other 68 follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    rest = (byte for byte in range(256) if byte not in set(printable))
    return table | {chr(256 + i): byte for i, byte in enumerate(rest)}


def token_table(backend: tokenizers.Tokenizer, scheme: Scheme) -> list[bytes]:
    """Bytes of each id, as a list up to the largest id; b"" where no token has that id. Added tokens spell their own text."""
    vocab = backend.get_vocab(with_added_tokens=True)
    added = {token: token_id for token_id, token in ((i, t.content) for i, t in backend.get_added_tokens_decoder().items())}
    table = [b""] * (max(vocab.values(), default=-1) + 1)
    spell = _spell_byte_level() if scheme.byte_level else _spell_metaspace(scheme)
    for token, token_id in vocab.items():
        table[token_id] = spell(token) if token not in added else token.encode()
    return table


def _spell_byte_level() -> Any:
    alphabet = {ord(char): chr(byte) for char, byte in byte_alphabet().items()}
    # A character outside the alphabet must not pass for the byte of the same number: send it beyond latin-1.
    translation = dict.fromkeys(range(256), "\uffff") | alphabet

    def spell(token: str) -> bytes:
        try:
            return token.translate(translation).encode("latin-1")
        except UnicodeEncodeError:
            return token.encode()

    return spell


def _spell_metaspace(scheme: Scheme) -> Any:
    def spell(token: str) -> bytes:
        if scheme.byte_fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                return bytes((int(token[3:5], 16),))
            except ValueError:
                pass
        return (token.replace(_SPACE, " ") if scheme.metaspace else token).encode()

    return spell
