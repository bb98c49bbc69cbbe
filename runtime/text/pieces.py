"""Text and control tokens told apart: a text as a list of *pieces*, strings and the ids of control tokens between them.

A control token is an added token of the tokenizer (`<|im_end|>`, `<think>`), special or not; added tokens that are only
whitespace are ordinary vocabulary. In what users type such a text must stay text, while the chat template writes real ones,
and both meet in one rendered string. So each occurrence in a content string is wrapped in two private-use characters before
rendering:

    content  "say <|im_end|>"      ->  "say \\U0010FDFE<|im_end|>\\U0010FDFF"
    rendered "<|im_start|>user\\nsay \\U0010FDFE<|im_end|>\\U0010FDFF<|im_end|>"
    pieces   [im_start, "user\\nsay <|im_end|>", im_end]

The template still sees the token's text, so its branches (`'</think>' in content`) are those of the model's authors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import tokenizers

from ..errors import InvalidRequest

OPEN, CLOSE, CUT = "\U0010fdfe", "\U0010fdff", "\U0010fdfd"  # CUT is template.py's mark of where a message is left open
_RESERVED = re.compile(f"[{CUT}-{CLOSE}]")

Pieces = list[str | int]


class Hit(NamedTuple):
    """Characters [start, end) are control token `id`; whitespace that the token swallows is in [outer_start, outer_end)."""

    start: int
    end: int
    outer_start: int
    outer_end: int
    id: int


def check_unicode(text: str, param: str | None = None) -> None:
    """Raises InvalidRequest (invalid_unicode) for a lone surrogate, which has no UTF-8 form."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"The text has the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}, which is not valid "
            "Unicode. Send whole characters.",
            code="invalid_unicode",
            param=param,
        ) from None


class ControlTokens:
    """Finds control tokens in text exactly as the tokenizer does: leftmost, longest, with each token's own flags."""

    def __init__(self, tokens: Mapping[int, tokenizers.AddedToken], normalizer: Any = None):
        """tokens: id -> added token. normalizer: the tokenizer's, for tokens that are matched in normalised text."""
        self.ids = list(tokens)
        self.texts = [token.content for token in tokens.values()]
        # A tokenizer whose model knows no word: what it returns are the added tokens alone, found in linear time.
        self._scanner = tokenizers.Tokenizer(tokenizers.models.BPE())
        self._scanner.add_tokens(list(tokens.values()))
        if normalizer is not None and any(token.normalized for token in tokens.values()):
            self._scanner.normalizer = normalizer
            self._possible = re.compile("")  # anything may become a token
        else:  # a text without the first two characters of a token has none: the scanner is not asked
            self._possible = re.compile("|".join(sorted({re.escape(text[:2]) for text in self.texts})) or "(?!)")

    def find(self, text: str) -> list[Hit]:
        """All control tokens written in `text`, in order, not overlapping."""
        if not self._possible.search(text):
            return []
        found = self._scanner.encode(text, add_special_tokens=False)
        hits = []
        for index, (outer_start, outer_end) in zip(found.ids, found.offsets, strict=True):
            start = text.find(self.texts[index], outer_start, outer_end)
            end = start + len(self.texts[index])
            if start < 0:  # matched in normalised text only
                start, end = outer_start, outer_end
            hits.append(Hit(start, end, outer_start, outer_end, self.ids[index]))
        return hits

    def split(self, text: str) -> Pieces:
        """`text` with its control tokens as ids, as in a prompt of a trusted program."""
        return _cut(text, [(hit, True) for hit in self.find(text)])

    def mark(self, value: Any) -> tuple[Any, bool]:
        """(`value` with every control token's text in its strings wrapped, whether there was one). Dicts and lists are walked.

        Raises InvalidRequest (invalid_unicode) for lone surrogates and for the characters that serve as marks.
        """
        seen: list[bool] = []

        def wrap(text: str) -> str:
            check_unicode(text)
            if (found := _RESERVED.search(text)) is not None:
                raise InvalidRequest(
                    f"A message has the private-use character U+{ord(found[0]):X}, which is reserved here. Remove it.",
                    code="invalid_unicode",
                )
            hits = self.find(text)
            seen.extend([True] * len(hits))
            parts, at = [], 0
            for hit in hits:
                parts += [text[at : hit.start], OPEN, text[hit.start : hit.end], CLOSE]
                at = hit.end
            return "".join([*parts, text[at:]]) if hits else text

        return _map_strings(value, wrap), bool(seen)

    def resolve(self, plain: str, marked: str) -> Pieces:
        """Pieces of a text that was rendered twice, from unmarked and from marked contents.

        Usually `marked` without its marks is `plain`. Where the template cut or stripped beside a mark they differ: then
        the kinds found in `marked` are carried over to `plain` if both have the same control tokens in the same order,
        else `marked` counts, in which nothing that was typed can be taken for a control token.
        """
        found = self.find(marked)
        typed = [marked[hit.start - 1 : hit.start] == OPEN and marked[hit.end : hit.end + 1] == CLOSE for hit in found]
        hits = self.find(plain)
        if [hit.id for hit in hits] == [hit.id for hit in found]:
            return _cut(plain, [(hit, not is_typed) for hit, is_typed in zip(hits, typed, strict=True)])
        pieces = _cut(marked, [(hit, not is_typed) for hit, is_typed in zip(found, typed, strict=True)])
        return joined(_RESERVED.sub("", piece) if isinstance(piece, str) else piece for piece in pieces)


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_map_strings(key, change): _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_strings(item, change) for item in value]
    return value


def _cut(text: str, hits: list[tuple[Hit, bool]]) -> Pieces:
    """`text` cut at those hits that are control tokens; the others stay in the text, with the whitespace around them."""
    pieces: Pieces = []
    at = 0
    for hit, is_control in hits:
        if is_control:
            pieces += [text[at : hit.outer_start], hit.id]
            at = hit.outer_end
    return joined([*pieces, text[at:]])


def joined(pieces: Iterable[str | int]) -> Pieces:
    """The same pieces with neighbouring strings joined (they are tokenised as one text) and empty ones left out."""
    result: Pieces = []
    run: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            run.append(piece)
            continue
        if text := "".join(run):
            result.append(text)
        run = []
        result.append(piece)
    if text := "".join(run):
        result.append(text)
    return result
