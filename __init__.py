"""Ramify: programs that call a language model many times, and the engine that runs them.

Nothing is imported until it is used, so `import ramify` takes milliseconds; each public name comes from the module below.
"""

__version__ = "0.1.0"

_HOME = {
    "lang.api": (
        "assistant",
        "assistant_begin",
        "assistant_end",
        "flush_cache",
        "function",
        "gen",
        "gen_int",
        "gen_string",
        "get_server_info",
        "image",
        "role",
        "select",
        "set_default_backend",
        "system",
        "system_begin",
        "system_end",
        "tool",
        "user",
        "user_begin",
        "user_end",
        "video",
    ),
    "lang.backends.endpoint": ("RuntimeEndpoint",),
    "lang.backends.engine": ("Engine",),
    "lang.backends.openai": ("OpenAI",),
    "lang.backends.server": ("Runtime",),
    "lang.choices": (
        "ChoicesDecision",
        "greedy_token_selection",
        "token_length_normalized",
        "unconditional_likelihood_normalized",
    ),
    "lang.explain": ("Explanation",),
    "lang.program": ("Program",),
    "lang.state": ("ProgramState", "ProgramStateGroup"),
    "lang.tool_loop": ("arun_tools", "run_tools"),
    "lang.tools": ("Call", "ToolAnswer"),
    "lang.trace": ("Plan",),
    "runtime.errors": (
        "Aborted",
        "AuthenticationFailed",
        "ConstraintError",
        "ContextLengthExceeded",
        "DeadlineExceeded",
        "EngineError",
        "InvalidRequest",
        "ModelError",
        "ModelNotFound",
        "Overloaded",
        "PermissionDenied",
        "RamifyError",
        "TooManyRequests",
    ),
    "runtime.protocol": ("SamplingParams",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__"]
__all__ += ["errors", *_MODULE_OF]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name):
    from importlib import import_module

    if name == "errors":
        value = import_module(f"{__name__}.runtime.errors")
    elif name in _MODULE_OF:
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
