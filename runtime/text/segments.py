"""Prompts to token ids: the one entry of the text room for whoever submits requests.

A prompt is a list of segments. Text that follows text is joined first and tokenised once, so that a border between two
segments leaves no trace; ids that are given stay as they are, and text behind them continues them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InvalidRequest
from ..protocol import Chat, Image, Prompt, Text, Tokens
from .chat import render
from .continuation import continue_from
from .pieces import Pieces, check_unicode, joined
from .template import ChatTemplate
from .tokenizer import Tokenizer


class Encoded(NamedTuple):
    """A prompt as ids (int32). kept_tokens at the beginning were given or held as ids, new_tokens were tokenised.

    reason: "new", "continued", or what the template rewrote (`continuation.py`). drop_space: the answer to this prompt will
    begin with a space that the template writes and that is not part of its content (for `Detokenizer`).
    """

    ids: np.ndarray
    kept_tokens: int
    new_tokens: int
    reason: str
    drop_space: bool = False


class EncodedChoices(NamedTuple):
    """prompt: ids that every choice continues. choices: the ids of each (int32, at least one), in order."""

    prompt: Encoded
    choices: tuple[np.ndarray, ...]


class _Layout(NamedTuple):
    """A prompt before its last text is tokenised. head: ids so far, `kept` of them given; pieces: what follows them.

    begins: the pieces are the beginning of a raw text prompt and get the tokenizer's prefix.
    """

    head: np.ndarray
    kept: int
    reason: str
    pieces: Pieces
    begins: bool


def encode_prompt(prompt: Prompt, tokenizer: Tokenizer, template: ChatTemplate, *, vocab_size: int | None = None) -> Encoded:
    """The ids of a prompt. vocab_size: rows of the model's embedding, the bound of given ids (default: the tokenizer's).

    Raises InvalidRequest: empty_prompt, invalid_token_id, invalid_unicode, unsupported_modality, invalid_prompt (a Chat that
    is not the first segment), and what rendering a conversation raises.
    """
    whole = _in_one_go(prompt, tokenizer, template)
    if whole is not None:
        encoded = Encoded(whole, 0, len(whole), "new")
    else:
        layout = _lay_out(prompt, tokenizer, template, vocab_size or tokenizer.vocab_size)
        encoded = _encode(layout, layout.pieces, tokenizer)
    return _not_empty(encoded)._replace(drop_space=_asks(prompt) and template.space_before_answers)


def encode_choices(
    prompt: Prompt,
    choices: Sequence[str],
    tokenizer: Tokenizer,
    template: ChatTemplate,
    *,
    vocab_size: int | None = None,
) -> EncodedChoices:
    """The ids of a prompt and of texts that may follow it, each tokenised together with the prompt's last text.

    So the prompt's last tokens may count to the choices: "a: " and "yes" are [a, :, " yes"], and "a:" is what all continue.
    Raises as `encode_prompt`, and InvalidRequest for an empty choice.
    """
    for index, choice in enumerate(choices):
        check_unicode(choice, f"choices[{index}]")
        if not choice:
            raise InvalidRequest(
                f"Choice {index} is the empty string, which has no probability. Give it text.", param=f"choices[{index}]"
            )
    layout = _lay_out(prompt, tokenizer, template, vocab_size or tokenizer.vocab_size)
    has_text = bool(layout.pieces) and isinstance(layout.pieces[-1], str)
    last, before = (layout.pieces[-1:], layout.pieces[:-1]) if has_text else ([], layout.pieces)
    head = _encode(layout, before, tokenizer)
    after = int(head.ids[-1]) if len(head.ids) and not (layout.begins and not before) else None
    own = tokenizer.encode_pieces(last, after=after)
    tails = [tokenizer.encode_pieces(joined([*last, choice]), after=after) for choice in choices]
    shared = min([len(own), *(_common(own, tail) for tail in tails)])
    if not len(head.ids) + shared and len(own):  # nothing is left that all continue: the border stays a token border
        shared, after = len(own), int(own[-1])
        tails = [np.concatenate([own, tokenizer.encode_pieces([choice], after=after)]) for choice in choices]
    ids = np.concatenate([head.ids, own[:shared]])
    whole = Encoded(ids, head.kept_tokens, len(ids) - head.kept_tokens, head.reason)
    return EncodedChoices(_not_empty(whole), tuple(tail[shared:] for tail in tails))


def _asks(prompt: Prompt) -> bool:
    """Whether the prompt is a conversation that ends where an answer begins."""
    only = prompt[0] if len(prompt) == 1 else None
    if not isinstance(only, Chat):
        return False
    return not only.continue_final and only.generation_prompt


def _in_one_go(prompt: Prompt, tokenizer: Tokenizer, template: ChatTemplate) -> np.ndarray | None:
    """The ids of the plain cases, one text or one conversation of which nothing is held and nothing looks like a control
    token, straight from the tokenizer; else None."""
    if len(prompt) != 1:
        return None
    only = prompt[0]
    if isinstance(only, Text) and only.text and only.control:
        return tokenizer.encode(only.text, bos=True)
    if isinstance(only, Chat) and not only.held:
        text, pieces = render(only, tokenizer, template)
        return tokenizer.encode(text) if text is not None else tokenizer.encode_pieces(pieces)
    return None


def _lay_out(prompt: Prompt, tokenizer: Tokenizer, template: ChatTemplate, vocab_size: int) -> _Layout:
    leading = next((i for i, segment in enumerate(prompt) if i and not isinstance(segment, Text)), len(prompt))
    if prompt and isinstance(chat := prompt[0], Chat):
        layout = _open_chat(chat, _text_pieces(prompt, 1, leading, tokenizer), tokenizer, template, vocab_size)
        return _follow(layout, prompt, leading, tokenizer, vocab_size)
    return _follow(_Layout(np.empty(0, np.int32), 0, "new", [], True), prompt, 0, tokenizer, vocab_size)


def _follow(layout: _Layout, prompt: Prompt, first: int, tokenizer: Tokenizer, vocab_size: int) -> _Layout:
    """The layout with the segments from `first` on behind it."""
    for index in range(first, len(prompt)):
        segment = prompt[index]
        if isinstance(segment, Text):
            layout = layout._replace(pieces=joined([*layout.pieces, *_text_pieces(prompt, index, index + 1, tokenizer)]))
        elif isinstance(segment, Tokens):
            layout = _append(layout, _given(segment.ids, vocab_size, f"prompt[{index}]"), tokenizer)
        elif isinstance(segment, Image):
            raise InvalidRequest(
                "The prompt has an image, and this model reads text only. Leave the image out.",
                code="unsupported_modality",
                param=f"prompt[{index}]",
            )
        else:
            raise InvalidRequest(
                f"Segment {index} of the prompt is a conversation, which can only come first. Put its text into its messages.",
                code="invalid_prompt",
                param=f"prompt[{index}]",
            )
    return layout


def _text_pieces(prompt: Prompt, first: int, stop: int, tokenizer: Tokenizer) -> Pieces:
    """The Text segments [first, stop) of a prompt as pieces."""
    pieces: Pieces = []
    for index in range(first, stop):
        segment = prompt[index]
        assert isinstance(segment, Text)
        check_unicode(segment.text, f"prompt[{index}]")
        pieces += tokenizer.control.split(segment.text) if segment.control else [segment.text]
    return joined(pieces)


def _append(layout: _Layout, ids: np.ndarray, tokenizer: Tokenizer) -> _Layout:
    """Given ids end the text before them."""
    if not len(ids):
        return layout
    if not layout.pieces and layout.kept == len(layout.head):
        return _Layout(np.concatenate([layout.head, ids]), layout.kept + len(ids), "continued", [], False)
    head = np.concatenate([_encode(layout, layout.pieces, tokenizer).ids, ids])
    return _Layout(head, layout.kept, layout.reason, [], False)


def _open_chat(chat: Chat, following: Pieces, tokenizer: Tokenizer, template: ChatTemplate, vocab_size: int) -> _Layout:
    """A conversation and the text that goes on directly behind it; both may be held already."""
    _, pieces = render(chat, tokenizer, template)
    held = _given(chat.held, vocab_size, "prompt[0].held")

    def history(k: int) -> Pieces | None:
        try:
            return render(chat, tokenizer, template, messages=k)[1]
        except InvalidRequest:
            return None

    pieces = joined([*pieces, *following])
    found = continue_from(held, pieces, tokenizer, messages=len(chat.messages), history=history)
    return _Layout(held[: found.kept_tokens], found.kept_tokens, found.reason, found.rest, False)


def _encode(layout: _Layout, pieces: Pieces, tokenizer: Tokenizer) -> Encoded:
    """The layout's head and `pieces` behind it: all of its pieces, or the first ones."""
    ids = tokenizer.encode_pieces(pieces, after=int(layout.head[-1]) if len(layout.head) else None)
    ids = tokenizer.with_prefix(ids) if layout.begins and layout.pieces else ids
    return Encoded(np.concatenate([layout.head, ids]), layout.kept, len(ids), layout.reason)


def _not_empty(encoded: Encoded) -> Encoded:
    if not len(encoded.ids):
        raise InvalidRequest("The prompt is empty. Give at least one character or token.", code="empty_prompt", param="prompt")
    return encoded


def _given(buffer: bytes, vocab_size: int, param: str) -> np.ndarray:
    """Ids from their buffer, checked."""
    if len(buffer) % 4:
        raise InvalidRequest(
            f"A buffer of token ids has {len(buffer)} bytes, which is not a multiple of 4. Send int32 values.",
            code="invalid_token_id",
            param=param,
        )
    ids = np.frombuffer(buffer, np.int32)
    wrong = np.flatnonzero((ids < 0) | (ids >= vocab_size))
    if len(wrong):
        raise InvalidRequest(
            f"Token id {ids[wrong[0]]} at position {wrong[0]} is outside this model's vocabulary of {vocab_size} tokens. "
            "Send ids of this model's tokenizer.",
            code="invalid_token_id",
            param=param,
        )
    return ids


def _common(a: np.ndarray, b: np.ndarray) -> int:
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if len(different) else size
