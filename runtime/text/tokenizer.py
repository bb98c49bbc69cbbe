"""Text to token ids and back: `tokenizer.json` through the `tokenizers` library, with control over what is a control token.

Three encoders share one model (vocabulary and merges are held once): one knows the added tokens, two do not; of these one
puts the dummy space of sentencepiece-like tokenizers before the text, the other (for text that continues other text) does
not. For byte-level tokenizers the two are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from ..errors import ModelError
from .pieces import ControlTokens, Pieces, check_unicode
from .spelling import scheme_of, text_normalizer, token_table, without_dummy

Ids = np.ndarray | Sequence[int]

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint; {} if there is no such file. Raises ModelError if it is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}). Fetch the file again.") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a JSON {type(value).__name__}, not an object. Fetch the file again.")
    return value


class Tokenizer:
    """A model's tokenizer. Immutable after loading, and safe to use from several threads.

    named: the named special tokens (`bos_token`, ...), which templates read. bos_id: id of bos_token or None.
    prefix: ids that a raw text prompt begins with (usually one BOS, or nothing). eos_ids: ids that end a text by the
    checkpoint's configs. special_ids: left out by skip_special. control_ids: what `pieces.py` calls control tokens.
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: Mapping[str, Any], eos_ids: Iterable[int] = ()):
        """backend: a loaded tokenizer, taken over. config: tokenizer_config.json with special_tokens_map.json in it."""
        backend.no_truncation()
        backend.no_padding()
        self.named = {name: text for name in _NAMED if (text := _token_text(config.get(name))) is not None}
        _complete(backend, config, self.named)
        self._backend = backend
        self.scheme = scheme_of(backend)
        added = backend.get_added_tokens_decoder()
        control = {i: token for i, token in sorted(added.items()) if not token.content.isspace()}
        self.control_ids = frozenset(control)
        self.control = ControlTokens(control, backend.normalizer)
        self._blanks = [token for i, token in sorted(added.items()) if i not in control]
        extra = [backend.token_to_id(text) for text in self.named.values()]
        self.special_ids = frozenset(i for i, token in added.items() if token.special) | {i for i in extra if i is not None}
        self.bos_id = backend.token_to_id(self.named["bos_token"]) if "bos_token" in self.named else None
        eos = backend.token_to_id(self.named["eos_token"]) if "eos_token" in self.named else None
        self.eos_ids = frozenset(eos_ids) | ({eos} if eos is not None else frozenset())
        self.prefix = self._read_prefix(config)
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._text_normalizer = text_normalizer(backend)

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer of a checkpoint folder. Raises ModelError that says which file is missing or wrong."""
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                f"{folder} has no tokenizer.json. Load the tokenizer with transformers and write one: "
                f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})."
            )
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise ModelError(f"{path} is not a tokenizer that the tokenizers library can read: {error}") from None
        config = {**read_json(folder / "special_tokens_map.json"), **read_json(folder / "tokenizer_config.json")}
        model = read_json(folder / "config.json")
        sources = [read_json(folder / "generation_config.json"), model, model.get("text_config")]
        eos_ids = [i for source in sources if isinstance(source, dict) for i in _as_ids(source.get("eos_token_id"))]
        try:
            return cls(backend, config, eos_ids)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{folder}: a field of tokenizer_config.json or special_tokens_map.json is not what it should be ({error!r}). "
                "Fetch both again."
            ) from error

    def _read_prefix(self, config: Mapping[str, Any]) -> np.ndarray:
        """BOS by tokenizer_config's word if it has one, else whatever the post-processor puts before a text."""
        wanted = config.get("add_bos_token")
        if wanted is not None:
            return _array([self.bos_id] if wanted and self.bos_id is not None else [])
        bare = self._backend.encode("a", add_special_tokens=False).ids
        whole = self._backend.encode("a", add_special_tokens=True).ids
        at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        return _array(whole[:at])

    # -------------------------------------------------------------------------------------------------- text to ids

    def encode(self, text: str, *, control: bool = True, bos: bool = False, after: int | None = None) -> np.ndarray:
        """Token ids of `text`, int32.

        control: added tokens written in the text are control tokens; else they stay text. after: the id that the text
        follows, None at the beginning of a prompt; continued text gets no dummy space. bos: put `prefix` before it, once.
        Raises InvalidRequest (invalid_unicode) for lone surrogates.
        """
        check_unicode(text)
        if control and after is None:
            ids = _array(self._backend.encode(text, add_special_tokens=False).ids)
        else:
            ids = self.encode_pieces(self.control.split(text) if control else [text] if text else [], after=after)
        return self.with_prefix(ids) if bos else ids

    def with_prefix(self, ids: np.ndarray) -> np.ndarray:
        """`ids` beginning with `prefix`, which is not repeated if the text itself began with it."""
        return ids if np.array_equal(ids[: len(self.prefix)], self.prefix) else np.concatenate([self.prefix, ids])

    def encode_pieces(self, pieces: Pieces, *, after: int | None = None) -> np.ndarray:
        """Token ids of text and control tokens told apart; strings never give a control token. int32."""
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, int):
                ids.append(piece)
            else:
                ids += self._encode_plain(piece, after=ids[-1] if ids else after)
        return _array(ids)

    def _encode_plain(self, text: str, *, after: int | None) -> list[int]:
        dummy = after is None or (self.scheme.dummy == "each" and after in self.control_ids)
        ids = self._encode_with(self._first if dummy else self._next, text)
        if not self.control_ids.isdisjoint(ids):
            ids = self._broken(text, after=after)
        return ids

    def _broken(self, text: str, *, after: int | None) -> list[int]:
        """Some vocabularies (unigram) spell a control token from plain text: the text is cut inside each occurrence."""
        unknown = self._backend.token_to_id(self.named["unk_token"]) if "unk_token" in self.named else None
        ids: list[int] = []
        at = 0
        for cut in [*(hit.start + 1 for hit in self.control.find(text)), len(text)]:
            part = self._encode_with(self._first if not at and after is None else self._next, text[at:cut])
            ids += [i for i in part if i == unknown or i not in self.control_ids]
            at = cut
        return ids

    @staticmethod
    def _encode_with(plain: tuple[tokenizers.Tokenizer, dict[int, int]], text: str) -> list[int]:
        encoder, ours = plain
        ids = encoder.encode(text, add_special_tokens=False).ids
        return [ours.get(i, i) for i in ids] if ours else ids

    @cached_property
    def _first(self) -> tuple[tokenizers.Tokenizer, dict[int, int]]:
        return self._plain(self._backend.normalizer, self._backend.pre_tokenizer)

    @cached_property
    def _next(self) -> tuple[tokenizers.Tokenizer, dict[int, int]]:
        return self._plain(*without_dummy(self._backend)) if self.scheme.dummy else self._first

    def _plain(self, normalizer: Any, pre_tokenizer: Any) -> tuple[tokenizers.Tokenizer, dict[int, int]]:
        """(an encoder without control tokens that shares the model, its ids -> ours where they differ)."""
        encoder = tokenizers.Tokenizer(self._backend.model)
        if normalizer is not None:
            encoder.normalizer = normalizer
        if pre_tokenizer is not None:
            encoder.pre_tokenizer = pre_tokenizer
        encoder.add_tokens(self._blanks)
        pairs = [(encoder.token_to_id(t.content), self._backend.token_to_id(t.content)) for t in self._blanks]
        return encoder, {a: b for a, b in pairs if a is not None and b is not None and a != b}

    def normalise(self, text: str) -> str:
        """The text that the ids of `text` will spell (NFC for some tokenizers); nearly always `text` itself."""
        return text if self._text_normalizer is None else self._text_normalizer.normalize_str(text)

    # -------------------------------------------------------------------------------------------------- ids to text

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes of each id, `vocab_size` long; b"" where no token has that id. Built once, on first use."""
        return token_table(self._backend, self.scheme)

    def spell(self, ids: Ids) -> bytes:
        """The bytes of `ids` one after the other, dummy space included; ids without a token spell nothing."""
        table = self.token_bytes
        return b"".join([table[i] if 0 <= i < len(table) else b"" for i in _plain_ints(ids)])

    def decode(self, ids: Ids, *, skip_special: bool = False) -> str:
        """The text of `ids` from the beginning of a text: invalid bytes become U+FFFD, a dummy space is dropped."""
        kept = [i for i in _plain_ints(ids) if not (skip_special and i in self.special_ids)]
        text = self.spell(kept).decode("utf-8", errors="replace")
        return text[1:] if self.scheme.strips and text.startswith(" ") else text

    def token_text(self, token: int) -> str:
        """One token's bytes, decoded with replacement."""
        return self.spell([token]).decode("utf-8", errors="replace")

    def token_id(self, text: str) -> int | None:
        """The id of the vocabulary entry written `text` (in the vocabulary's own alphabet), or None."""
        return self._backend.token_to_id(text)


def _array(ids: Sequence[int]) -> np.ndarray:
    return np.array(ids, dtype=np.int32)


def _plain_ints(ids: Ids) -> Sequence[int]:
    return ids.tolist() if isinstance(ids, np.ndarray) else ids


def _token_text(value: Any) -> str | None:
    """A special token in a config: its text, or a dict with it as `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _as_ids(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, int) and not isinstance(v, bool)]


def _complete(backend: tokenizers.Tokenizer, config: Mapping[str, Any], named: Mapping[str, str]) -> None:
    """Adds the tokens that only tokenizer_config.json names. Raises ModelError if they would get another id than it says."""
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    listed: Mapping[str, Any] = config.get("added_tokens_decoder") or {}
    for token_id, entry in sorted(listed.items(), key=lambda item: int(item[0])):
        if entry["content"] in known:
            continue
        flags = {key: bool(entry[key]) for key in ("single_word", "lstrip", "rstrip", "normalized", "special") if key in entry}
        backend.add_tokens([tokenizers.AddedToken(entry["content"], **flags)])
        known.add(entry["content"])
        if (got := backend.token_to_id(entry["content"])) != int(token_id):
            raise ModelError(
                f"tokenizer_config.json gives {entry['content']!r} the id {token_id}, but after tokenizer.json the next free "
                f"id is {got}. The two files do not belong together: fetch both again."
            )
    extra = config.get("additional_special_tokens") or config.get("extra_special_tokens") or []
    texts = [_token_text(value) for value in (extra.values() if isinstance(extra, dict) else extra)]
    missing = [text for text in dict.fromkeys([*named.values(), *texts]) if text is not None and text not in known]
    backend.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False) for text in missing])
