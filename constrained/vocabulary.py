"""The bytes that each token id stands for: what a grammar engine needs to know about a tokenizer, and nothing else.

Built once where the tokenizer is loaded, sent as bytes to the compile processes and to the engine process. Two spellings are
understood: byte-level BPE (each character of a token stands for one byte, as in GPT-2, Llama 3, Qwen) and SentencePiece style
(`▁` is a space, `<0x0A>` is a byte, everything else is UTF-8, as in Llama 2, Mistral, Gemma).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec

from ..runtime.errors import ModelError

SPACE_MARK = "▁"
CONTROL_MARK = b"\xff"


class Vocabulary(msgspec.Struct, frozen=True):
    """`tokens[i]` are the bytes of token i. Empty bytes mean that no grammar may ever allow the token: ids without a token,
    padding of the embedding.

    Added tokens (special or not) are control text: no characters of a grammar stand for them, only a `grammar.Control` with
    their ids. Their bytes are CONTROL_MARK, which no UTF-8 has, and their text; `controls` and `specials` are their ids by
    text. `stop_ids` end the output, and are allowed exactly where the grammar may end. `size` is the length of a row of logits.
    """

    tokens: list[bytes]
    stop_ids: list[int]
    size: int
    controls: dict[str, int] = {}
    specials: dict[str, int] = {}

    @classmethod
    def from_tokenizer(cls, tokenizer_json: str | bytes, *, stop_ids: Iterable[int], size: int | None = None) -> Vocabulary:
        """From the text of a tokenizer.json (`Tokenizer.to_str()` gives the same).

        stop_ids: the ids that end a generation. size: length of a row of logits, larger or smaller than the tokenizer;
        default: the tokenizer's number of ids. Raises ModelError when the file does not say how tokens become bytes, and
        when there is no stop id below `size`.
        """
        try:
            described: dict[str, Any] = msgspec.json.decode(tokenizer_json)
            ids = _ids_of_pieces(described["model"])
            added = {int(t["id"]): (str(t["content"]), bool(t.get("special"))) for t in described.get("added_tokens") or ()}
        except (msgspec.DecodeError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ModelError(f"tokenizer.json has no readable vocabulary ({error}). Download the file again.") from error
        count = 1 + max(max(ids.values(), default=-1), max(added, default=-1))
        size = count if size is None else size
        spell = _spelling(described, ids)
        tokens = [b""] * min(size, count)
        for piece, token in ids.items():
            if token < size and token not in added:
                tokens[token] = spell(piece)
        stops = frozenset(stop_ids)
        named = {token: said for token, said in added.items() if token < size and token not in stops and said[0].strip()}
        for token, (text, _) in named.items():
            tokens[token] = CONTROL_MARK + text.encode("utf-8", "replace")
        plain = cls.from_tokens(tokens, stop_ids=stops, size=size)
        controls, specials = ({text: i for i, (text, special) in named.items() if special is kind} for kind in (False, True))
        return msgspec.structs.replace(plain, controls=controls, specials=specials)

    @classmethod
    def from_tokens(cls, tokens: Iterable[bytes], *, stop_ids: Iterable[int], size: int | None = None) -> Vocabulary:
        """From the bytes per id; the stop ids' own bytes are dropped. Raises ModelError without a stop id below `size`."""
        listed = list(tokens)
        size = len(listed) if size is None else size
        stops = sorted({s for s in stop_ids if 0 <= s < size})
        if not stops:
            raise ModelError(
                f"No end token has an id below {size}, so constrained output could never end. "
                "Name the end token in the model's config or generation_config (eos_token_id)."
            )
        for stop in stops:
            if stop < len(listed):
                listed[stop] = b""
        return cls(listed[:size], stops, size)

    def to_bytes(self) -> bytes:
        """MessagePack; `from_bytes` is the way back."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Vocabulary:
        """The vocabulary that `to_bytes` wrote. Raises msgspec.DecodeError for anything else."""
        return msgspec.msgpack.decode(data, type=cls)


def fingerprint(vocabulary: bytes) -> str:
    """32 hex digits that tell two serialised vocabularies apart."""
    return hashlib.blake2b(vocabulary, digest_size=16).hexdigest()


def _ids_of_pieces(model: dict[str, Any]) -> dict[str, int]:
    """piece -> id of the `model` section: a mapping (BPE, WordPiece), or a list of (piece, score) (Unigram)."""
    vocab = model["vocab"]
    if isinstance(vocab, list):
        return {str(entry[0]): index for index, entry in enumerate(vocab)}
    return {str(piece): int(token) for piece, token in vocab.items()}


def _spelling(described: dict[str, Any], ids: dict[str, int]):
    """The function piece -> bytes that belongs to the tokenizer's decoder."""
    kinds = _kinds(described.get("decoder")) | _kinds(described.get("pre_tokenizer"))
    if "ByteLevel" in kinds:
        return _byte_level
    if kinds & {"ByteFallback", "Metaspace"} or "<0x0A>" in ids or any(piece.startswith(SPACE_MARK) for piece in ids):
        return _sentence_piece
    kind = (described.get("decoder") or {}).get("type", "none")
    raise ModelError(
        f"Constrained output needs the bytes of each token, and this tokenizer's decoder ({kind}) does not give them: "
        "byte-level BPE and SentencePiece-style vocabularies are understood."
    )


def _kinds(section: Any) -> set[str]:
    """The `type` of a section of tokenizer.json and of the parts it is made of."""
    if not isinstance(section, dict):
        return set()
    parts = (section.get("decoders") or []) + (section.get("pretokenizers") or [])
    return {str(section.get("type"))}.union(*(_kinds(part) for part in parts))


def _byte_level(piece: str) -> bytes:
    table = _byte_of_character()
    try:
        return bytes(table[c] for c in piece)
    except KeyError:
        return b""  # a piece outside the byte alphabet cannot come from text


def _sentence_piece(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        try:
            return bytes([int(piece[3:5], 16)])
        except ValueError:
            pass
    return piece.replace(SPACE_MARK, " ").encode("utf-8", "ignore")


@cache
def _byte_of_character() -> dict[str, int]:
    """The alphabet of byte-level BPE (GPT-2's `bytes_to_unicode`): printable Latin-1 stands for itself, the rest for 256 up."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [b for b in range(256) if b not in itself]
    return {chr(b): b for b in itself} | {chr(256 + i): b for i, b in enumerate(moved)}
