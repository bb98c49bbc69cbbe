"""Wires an engine together: checkpoint -> executor, prefix cache, grammars -> `Engine`. Runs where the steps run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from ..constrained.loading import GrammarLoader
from ..constrained.masks import Masks
from ..constrained.matcher import Matcher
from ..constrained.store import GrammarStore
from ..radix.cache import PrefixCache
from .bundled import MODEL_DIR
from .config import EngineOptions
from .engine import Engine
from .errors import RamifyError
from .executor.load import Loaded, find_model, load_executor
from .grammar import vocabulary_of
from .scheduler.arriving import Loading
from .scheduler.scheduler import MatcherMaker
from .text.template import ChatTemplate
from .text.tokenizer import Tokenizer
from .wire import EngineInfo, GrammarLoaded, Inbound

NOT_AN_ID = -1
"""Of the token that a text follows, where all that matters is that it follows one."""


def assemble(
    options: EngineOptions, on_progress: Callable[[str, float], None], post: Callable[[Inbound], None] | None = None
) -> tuple[Engine, EngineInfo]:
    """Load everything that `options` names. post: takes a message for the engine from any thread; without it grammars are read
    where they are first needed. Raises RamifyError, before weights are read where that can be known."""
    started = time.monotonic()
    folder = find_model(options)
    tokenizer = Tokenizer.load(folder)
    template = ChatTemplate.load(folder, tokenizer.named)
    loaded = load_executor(options, tokenizer_size=tokenizer.vocab_size, progress=on_progress)
    make_matcher, loading = _grammars(loaded, tokenizer, template, post)
    engine = Engine(
        loaded.config.schedule,
        PrefixCache(
            num_pages=loaded.config.cache.num_pages,
            page_size=loaded.config.cache.page_size,
            policy=loaded.config.cache.policy,
        ),
        loaded.executor,
        masks=Masks(loaded.model.vocab_size),
        make_matcher=make_matcher,
        loading=loading,
    )
    return engine, describe(options, loaded, load_s=time.monotonic() - started)


def _grammars(
    loaded: Loaded, tokenizer: Tokenizer, template: ChatTemplate, post: Callable[[Inbound], None] | None
) -> tuple[MatcherMaker, Loading | None]:
    """Grammars arrive compiled. Their engines take seconds to import, so that begins now, beside the first requests."""
    try:
        vocabulary = vocabulary_of(loaded.folder, tokenizer, template, loaded.model.vocab_size)
    except RamifyError as error:
        refusal = error

        def refuse(grammar: bytes, *, canonical: bool) -> Matcher:
            raise refusal

        return refuse, None

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, control=False, after=NOT_AN_ID).tolist()

    store = GrammarStore(vocabulary.to_bytes(), encode=encode, threads=loaded.config.threads)
    if post is None:
        return store.matcher, None
    return store.matcher, GrammarLoader(store, lambda ticket: post(GrammarLoaded(ticket)))


def describe(options: EngineOptions, loaded: Loaded, *, load_s: float) -> EngineInfo:
    """What was loaded and chosen. Answers only."""
    config, model = loaded.config, loaded.model
    return EngineInfo(
        model="bundled" if loaded.folder.resolve() == MODEL_DIR.resolve() else loaded.folder.name,
        path=str(loaded.folder),
        architecture=model.architecture,
        parameters=loaded.parameters,
        dtype=config.dtype,
        device=config.device,
        kernels=tuple(loaded.kernels),
        threads=config.threads,
        vocab_size=model.vocab_size,
        context_length=config.schedule.context_length,
        kv_tokens=config.cache.num_pages * config.cache.page_size,
        kv_bytes=loaded.kv_bytes,
        page_size=config.cache.page_size,
        max_running=config.schedule.max_running,
        chunk_tokens=config.schedule.chunk_tokens,
        depth=config.schedule.depth,
        eviction=config.cache.policy,
        schedule=config.schedule.policy,
        eos_ids=tuple(model.eos_ids),
        sampling_defaults=dict(model.sampling_defaults) if options.generation_defaults else {},
        load_s=load_s,
        pid=os.getpid(),
    )
