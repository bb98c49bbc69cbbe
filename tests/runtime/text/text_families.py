"""Small tokenizers and chat templates in the spirit of known model families, written as checkpoint folders."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ramify.runtime.text.template import ChatTemplate
from ramify.runtime.text.tokenizer import Tokenizer as TextTokenizer

WORDS = """the answer to your question is that we have many things here, and you can say hello or thanks. what does it cost?
I'll tell you: 12 apples, 3 pears; user and assistant turns. def f(x): return x + 1  # indent\n\n    two = [1, 2]\n
Ünïcödé naïve café — “quotes” and 你好世界 emoji 😀 Русский текст tool function arguments name weather city think reasoning"""

CHATML = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- if tools %}
    {{- '<|im_start|>tools\\n' }}{%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}{{- '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=0) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'system' and loop.first %}{%- continue %}{%- endif %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if reasoning and loop.index0 > ns.last %}
            {{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {%- generation %}{{- content }}{%- endgeneration %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

HEADERS = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

INST = """{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}{%- set turns = messages[1:] %}
{%- else %}{%- set system = none %}{%- set turns = messages %}{%- endif %}
{{- bos_token }}
{%- for message in turns %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user/assistant/user/assistant') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- '[INST] ' + (system + '\\n\\n' if system and loop.first else '') + message.content + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message.content + eos_token }}
    {%- endif %}
{%- endfor %}"""

TURNS = """{{ bos_token }}{% for message in messages %}
{% set role = 'model' if message.role == 'assistant' else message.role %}
{{ '<start_of_turn>' + role + '\\n' + message.content | trim + '<end_of_turn>\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

PIPES = """{% for message in messages %}
{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""


@dataclass(frozen=True)
class Family:
    """One kind of model. pieces: "bytes" for byte-level BPE, else where sentencepiece puts its dummy space."""

    name: str
    template: str
    pieces: str
    special: tuple[str, ...]
    ordinary: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)
    swallow: bool = False  # special tokens swallow whitespace to their right
    blanks: tuple[str, ...] = ()


FAMILIES = (
    Family(
        "chatml",
        CHATML,
        "bytes",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        ("<think>", "</think>", "<tool_call>", "</tool_call>"),
        {"eos_token": "<|im_end|>"},
    ),
    Family(
        "headers",
        HEADERS,
        "bytes",
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        named={"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    ),
    Family(
        "inst", INST, "first", ("<unk>", "<s>", "</s>"), named={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    ),
    Family(
        "turns",
        TURNS,
        "never",
        ("<unk>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        named={"bos_token": "<bos>", "eos_token": "<eos>"},
        blanks=("\n\n", "\t"),
    ),
    Family(
        "pipes", PIPES, "each", ("<unk>", "<s>", "</s>"), named={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    ),
    Family(
        "swallowing",
        PIPES.replace("eos_token + '\\n'", "'<|end|>\\n'"),
        "bytes",
        ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
        named={"eos_token": "<|endoftext|>"},
        swallow=True,
    ),
)


def train(family: Family) -> Tokenizer:
    """A tokenizer of a few hundred tokens."""
    special = [AddedToken(text, special=True, normalized=False, rstrip=family.swallow) for text in family.special]
    if family.pieces == "bytes":
        backend = Tokenizer(models.BPE())
        backend.normalizer = normalizers.NFC()
        words = Regex(r"(?i:'s|'t|'ll)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
        split = pre_tokenizers.Split(words, "isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=600, show_progress=False, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        backend.train_from_iterator([WORDS] * 4, trainer)
    else:
        backend = _sentencepiece(family, special)
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in family.ordinary])
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in family.blanks])
    return backend


def _sentencepiece(family: Family, special: list[AddedToken]) -> Tokenizer:
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)  # of the training only
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False, special_tokens=[*special, *fallback], limit_alphabet=60)
    backend.train_from_iterator([WORDS] * 4, trainer)
    state = json.loads(backend.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in fallback]
    backend = Tokenizer.from_str(json.dumps(state | {"pre_tokenizer": None}))
    if family.pieces == "each":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=family.pieces, split=False)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps if family.pieces == "never" else [*steps, decoders.Strip(" ", 1, 0)])
    return backend


def write(family: Family, folder: Path, **config: Any) -> Path:
    """The family as a folder like a checkpoint's. config: further entries of tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    backend = train(family)
    if "bos_token" in family.named:
        bos = family.named["bos_token"]
        token = backend.token_to_id(bos)
        backend.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, token)])
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": family.template, **family.named, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Loaded:
    """A family's folder and what Ramify makes of it."""

    folder: Path
    tokenizer: TextTokenizer
    template: ChatTemplate


def load(folder: Path) -> Loaded:
    """What a checkpoint folder holds, loaded."""
    tokenizer = TextTokenizer.load(folder)
    return Loaded(folder, tokenizer, ChatTemplate.load(folder, tokenizer.named))
