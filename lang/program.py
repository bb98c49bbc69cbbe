"""`Program`, what `@function` makes: run once, streamed, many at once, in a loop of one's own; bound, cached, traced."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial, update_wrapper
from typing import Any

from ..runtime.errors import InvalidRequest
from ..runtime.protocol import GenerateRequest, SamplingParams
from . import background
from .backend import backend_of
from .calls import collect
from .interpreter import Interpreter
from .nodes import Logprobs
from .progress import progress
from .run import Run, RunOptions
from .sampling import ALIASES, FIELDS, sampling_fields
from .state import ProgramState
from .tools import tool_of
from .trace import Plan, trace
from .variables import Fault

MAX_THREADS = 256
# What a run may say for all its calls.
SAMPLING_NAMES = FIELDS | set(ALIASES)
LOGPROB_NAMES = frozenset(Logprobs.__dataclass_fields__)
OPTION_NAMES = frozenset({"template_kwargs", "tools", "priority", "deadline_s", "tenant"})
RUN_NAMES = SAMPLING_NAMES | LOGPROB_NAMES | OPTION_NAMES | {"use_thread"}  # the last is SGLang's and changes nothing


class Program:
    """A program: a function of a state and further arguments, plain or `async def`. Frozen; every run has a state of its own.

    `program(...)` is `program.run(...)`; with a state as first argument it continues in that state instead.
    """

    def __init__(self, func: Callable[..., Any], bound: Mapping[str, Any] | None = None):
        parameters = list(inspect.signature(func).parameters.values())
        if not parameters or parameters[0].kind not in (parameters[0].POSITIONAL_ONLY, parameters[0].POSITIONAL_OR_KEYWORD):
            raise InvalidRequest(f"{func.__qualname__} needs the state as its first argument: def {func.__name__}(s, ...).")
        self.func = func
        self.bound = dict(bound or {})
        self.name = func.__qualname__
        self.arguments = tuple(parameter.name for parameter in parameters[1:])
        self.is_async = inspect.iscoroutinefunction(func)
        update_wrapper(self, func)

    def bind(self, **kwargs: Any) -> Program:
        """The program with some arguments given already. Raises InvalidRequest for a name it does not have."""
        unknown = [name for name in kwargs if name not in self.arguments]
        if unknown:
            raise InvalidRequest(f"{self.name} has no argument {unknown[0]!r}; it has {list(self.arguments)}.", param=unknown[0])
        return Program(self.func, {**self.bound, **kwargs})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], ProgramState):
            return self.func(*args, **{**self.bound, **kwargs})
        return self.run(*args, **kwargs)

    # ------------------------------------------------------------------------------------------------- running

    def run(self, *args: Any, stream: bool = False, backend: Any = None, **kwargs: Any) -> ProgramState:
        """Run and return the state when everything in it is done. Raises the first error that the program was not told.

        kwargs: the program's own arguments, then what holds for all its calls: max_new_tokens, stop, temperature, top_p and
        the other sampling parameters; return_logprob and its companions; template_kwargs and tools for the chat template;
        priority, deadline_s, tenant. A name that the program has as an argument is the program's.
        stream: return at once, while the program runs; read with `text_iter` and `text_async_iter`, errors come there.
        """
        run, state, kwargs = self._begin(backend, kwargs)
        if stream:
            return self._stream(run, state, args, kwargs)
        if self.is_async:
            error = background.run(self._complete(run, state, args, kwargs), f"await {self.func.__name__}.arun(...)")
        else:
            error = self._body(run, state, args, kwargs)
            if error is None:
                try:
                    error = background.run(_settled(run), f"await {self.func.__name__}.arun(...)")
                except BaseException as interrupt:
                    run.cancel(Fault(interrupt, None))
                    raise
        if error is not None:
            raise error
        return state

    async def arun(self, *args: Any, backend: Any = None, **kwargs: Any) -> ProgramState:
        """`run` for coroutines: an `async def` program runs in the caller's loop, another one in a thread of its own."""
        run, state, kwargs = self._begin(backend, kwargs)
        if (error := await self._complete(run, state, args, kwargs)) is not None:
            raise error
        return state

    def run_batch(
        self,
        batch_kwargs: Iterable[Mapping[str, Any] | Sequence[Any]],
        *,
        num_threads: int | str = "auto",
        progress_bar: bool = False,
        generator_style: bool = False,
        raise_errors: bool = True,
        backend: Any = None,
        **defaults: Any,
    ) -> Any:
        """Run once for each dict of arguments, at most `num_threads` at a time ("auto": 256). Returns the states in order.

        batch_kwargs: dicts, or lists of values in the order of the program's arguments. generator_style: an iterator of the
        states in order, each as soon as it is there. defaults: as `run`'s.
        raise_errors: the first error in order is raised when its turn comes (and the rest is stopped); if False every state
        is returned, and `state.error()` tells which failed.
        """
        batch = [self._named(arguments) for arguments in batch_kwargs]
        threads = MAX_THREADS if num_threads == "auto" else int(num_threads)
        if threads < 1:
            raise InvalidRequest(f"num_threads is {threads}; it must be at least 1.", param="num_threads")
        states = self._batch(batch, min(threads, MAX_THREADS), progress_bar, raise_errors, backend_of(backend), defaults)
        return states if generator_style else list(states)

    def _named(self, arguments: Any) -> Mapping[str, Any]:
        """The arguments of one run of a batch, by name."""
        if isinstance(arguments, (list, tuple)) and len(arguments) <= len(self.arguments):
            return dict(zip(self.arguments, arguments, strict=False))
        if not isinstance(arguments, Mapping):
            raise InvalidRequest(
                "run_batch needs a list of dicts, each with the arguments of one run, or of lists of "
                f"at most {len(self.arguments)} values.",
                param="batch_kwargs",
            )
        return arguments

    def _batch(
        self, batch: list[Any], threads: int, shown: bool, raise_errors: bool, backend: Any, defaults: dict[str, Any]
    ) -> Generator[ProgramState, None, None]:
        limit = asyncio.Semaphore(threads)

        async def one(kwargs: Mapping[str, Any]) -> tuple[ProgramState, BaseException | None]:
            async with limit:
                run, state, own = self._begin(backend, {**defaults, **kwargs})
                return state, await self._complete(run, state, (), own)

        futures = [background.submit(one(kwargs)) for kwargs in batch]
        try:
            with progress(len(batch), self.name, shown) as advance:
                for future in futures:
                    future.add_done_callback(lambda _: advance())
                for future in futures:
                    state, error = background.wait(future, "await program.arun(...) for each")
                    if error is not None and raise_errors:
                        raise error
                    yield state
        finally:
            for future in futures:
                future.cancel()

    # ------------------------------------------------------------------------------------------ looking ahead

    def trace(self, *, backend: Any = None, **kwargs: Any) -> Plan:
        """A dry run: what the program will append, as far as that is known without a model. Arguments not given are shown as
        `{name}`. `backend` is accepted for SGLang's sake; none is needed."""
        return trace(self.func, self.arguments, {**self.bound, **kwargs})

    def cache(self, backend: Any = None) -> int:
        """Compute what every run begins with (up to the first argument or call), so that the next run finds it cached.

        Returns how many prompt tokens that is, 0 if the program has no constant beginning."""
        prompt = self.trace().prefix()
        if not prompt:
            return 0
        request = GenerateRequest(prompt, SamplingParams(max_new_tokens=0), rid=f"cache-{self.name}")
        return background.run(_prefill(backend_of(backend), request), "the program's first call, which caches as well")

    # -------------------------------------------------------------------------------------------------- inside

    def _begin(self, backend: Any, kwargs: Mapping[str, Any]) -> tuple[Run, ProgramState, dict[str, Any]]:
        """A fresh run and its state, and the arguments that are the program's own."""
        own: dict[str, Any] = dict(self.bound)
        said: dict[str, Any] = {}
        for name, value in kwargs.items():
            (said if name in RUN_NAMES and name not in self.arguments else own)[name] = value
        run = Run(self.name, backend_of(backend), run_options(said))
        return run, ProgramState(Interpreter(run)), own

    def _body(self, run: Run, state: ProgramState, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BaseException | None:
        """Call the function. An error stops what is still running and is returned, except what only asks to stop."""
        try:
            state.ret_value = self.func(state, *args, **kwargs)
        except BaseException as error:
            run.cancel(Fault(error, None))
            if not isinstance(error, Exception):
                raise
            return error
        finally:
            run.finished_body()
        return None

    async def _complete(
        self, run: Run, state: ProgramState, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> BaseException | None:
        """Body and everything that it started. Cancelled, it stops them."""
        try:
            if self.is_async:
                state.ret_value = await self.func(state, *args, **kwargs)
                run.finished_body()
            else:
                error = await asyncio.wrap_future(_in_thread(partial(self._body, run, state, args, kwargs), self.name))
                if error is not None:
                    return error
            return await _settled(run)
        except BaseException as error:
            run.cancel(Fault(error, None))
            if not isinstance(error, Exception):
                raise
            return error
        finally:
            if not run.body_done:
                run.finished_body()

    def _stream(self, run: Run, state: ProgramState, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ProgramState:
        outside = ProgramState(state._executor, outside=True)

        def done(_: object) -> None:
            outside.ret_value = state.ret_value

        if self.is_async:
            background.submit(self._complete(run, state, args, kwargs)).add_done_callback(done)
        else:
            _in_thread(partial(self._body, run, state, args, kwargs), self.name).add_done_callback(done)
        return outside


def run_options(said: Mapping[str, Any]) -> RunOptions:
    """What a run says for all its calls. tools: JSON texts, objects that become such, functions. Raises InvalidRequest."""
    tools = said.get("tools") or ()
    return RunOptions(
        sampling=sampling_fields({name: value for name, value in said.items() if name in SAMPLING_NAMES}),
        logprobs=Logprobs(**{name: value for name, value in said.items() if name in LOGPROB_NAMES}),
        template_kwargs=dict(said.get("template_kwargs") or {}),
        tools=tuple(tool if isinstance(tool, str) else _definition(tool) for tool in tools),
        priority=said.get("priority") or 0,
        deadline_s=said.get("deadline_s"),
        tenant=said.get("tenant") or "",
    )


def _definition(tool: Any) -> str:
    return tool_of(tool).definition if callable(tool) else json.dumps(tool)


async def _settled(run: Run) -> BaseException | None:
    """Wait for all states of the run; returns the first error that nobody was told."""
    for interpreter in list(run.interpreters):
        await asyncio.shield(asyncio.wrap_future(interpreter.drained()))
    fault = run.untold()
    return None if fault is None else fault.tell()


async def _prefill(backend: Any, request: GenerateRequest) -> int:
    return (await collect(backend, request))[0].usage.prompt


def _in_thread(call: Callable[[], Any], name: str) -> Future[Any]:
    """Run `call` in a daemon thread of its own, with the caller's context variables."""
    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def target() -> None:
        if not future.set_running_or_notify_cancel():  # from here on nobody can cancel it, and it takes a result
            return
        try:
            future.set_result(context.run(call))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=target, name=f"ramify-{name}", daemon=True).start()
    return future
