"""The tokenizer: byte-level BPE of 4,096 tokens, trained on the synthetic text.

A space joins the word after it only for the short function words below; before all other words it is a token of its
own. So a name, a product or a number is cut into the same tokens wherever it stands (after a space, after a quote, at
the start of a line), which turns copying it into JSON into plain repetition: the one thing that so small a
model must do perfectly. Digits are single tokens. It also means that a prompt may end with a space or without one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .chat import CALL, END_OF_CALL, END_OF_TEXT, END_OF_TURN, TEMPLATE, TURN

VOCAB_SIZE = 4096
ADDED = (END_OF_TEXT, TURN, END_OF_TURN, CALL, END_OF_CALL)

JOINED = ("a an and are as at be been but by can could did do does for from go goes had has have he her his how i if in is it "
          "its me my no not of on or our out she so than that the their them then there they this to up us was we were what "
          "when where which who will with would you your").split()
SPLIT = (r"'(?:s|t|re|ve|m|ll|d)(?!\p{L})"
         rf"| (?:{'|'.join(JOINED)})(?!\p{{L}})"
         r"|\p{Lu}?\p{Ll}+|\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|[\r\n]+| +(?! )|\s")


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A tokenizer of exactly 4,096 tokens: 256 bytes, the merges, then the five added ones (ids 4091 to 4095)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE - len(ADDED), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False, max_token_length=14)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ADDED[:3]])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ADDED[3:]])
    size = tokenizer.get_vocab_size()
    if size != VOCAB_SIZE:
        raise ValueError(f"The tokenizer has {size} tokens, not {VOCAB_SIZE}: too few different words. Give it more text.")
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_positions: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_positions, "clean_up_tokenization_spaces": False,
        "bos_token": None, "eos_token": END_OF_TURN, "pad_token": END_OF_TEXT, "unk_token": None,
        "additional_special_tokens": [TURN],
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
