"""The vocabulary of a checkpoint as grammars see it: the same on the side that compiles and on the side that masks."""

from __future__ import annotations

from pathlib import Path

from ..constrained.vocabulary import Vocabulary
from .text.chat import end_token_ids
from .text.template import ChatTemplate
from .text.tokenizer import Tokenizer


def vocabulary_of(folder: Path, tokenizer: Tokenizer, template: ChatTemplate, size: int) -> Vocabulary:
    """Bytes of every token of the checkpoint in `folder`, `size` logits a row. Raises ModelError where they are not known."""
    described = (folder / "tokenizer.json").read_text(encoding="utf-8")
    return Vocabulary.from_tokenizer(described, stop_ids=end_token_ids(tokenizer, template), size=size)
