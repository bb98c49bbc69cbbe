"""Every error a user of Ramify can meet, as one tree; each knows its HTTP status and its code.

    RamifyError                         500  internal_error
    |-- InvalidRequest                  400  invalid_request (a code of its own per case)
    |   |-- ContextLengthExceeded       400  context_length_exceeded
    |   `-- ConstraintError             400  unsupported_schema, invalid_json_schema, unsatisfiable_grammar, ...
    |-- ModelError                      400  a checkpoint that cannot be loaded (raised before anything long starts)
    |-- AuthenticationFailed            401  invalid_api_key
    |-- PermissionDenied                403  admin_only
    |-- ModelNotFound                   404  model_not_found
    |-- TooManyRequests                 429  concurrency_limit
    |-- Overloaded                      503  queue_full, loading, draining, engine_unavailable
    |-- DeadlineExceeded                408  deadline_exceeded
    |-- Aborted                         499  aborted (the caller itself asked for it)
    `-- EngineError                     500  engine_error, nan_logits

A message says what was wrong, with the numbers, and what to do. Errors cross process borders as `Failure` values
(`protocol.py`) and become exceptions again at the caller; `from_code` is that way back.
"""

from __future__ import annotations


class RamifyError(Exception):
    """Base of all errors that Ramify raises on purpose.

    `code` is the stable machine-readable word, `param` names the offending argument (a field or a JSON pointer) or None.
    """

    status = 500
    type = "server_error"
    code = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message


class InvalidRequest(RamifyError):
    """The request cannot be served as it was asked; asking again in the same way will not help."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class ContextLengthExceeded(InvalidRequest):
    """Prompt, or prompt and max_tokens together, are longer than the model's context or than the KV pool."""

    code = "context_length_exceeded"


class ConstraintError(InvalidRequest):
    """A schema, regex or grammar that is malformed, cannot be enforced exactly, or has no finite text."""

    code = "unsupported_schema"


class ModelError(RamifyError):
    """A checkpoint that cannot be loaded; the message names the file and the remedy."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_model"


class AuthenticationFailed(RamifyError):
    """The server has keys, and the request came with none of them."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class PermissionDenied(RamifyError):
    """The key is known, but it does not open this route."""

    status = 403
    type = "permission_error"
    code = "admin_only"


class ModelNotFound(RamifyError):
    """No model of that name or path."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class TooManyRequests(RamifyError):
    """This key has as many requests on their way as it may have. `retry_after_s` is a hint."""

    status = 429
    type = "rate_limit_error"
    code = "concurrency_limit"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None, retry_after_s: float = 1.0):
        super().__init__(message, code=code, param=param)
        self.retry_after_s = retry_after_s


class Overloaded(RamifyError):
    """Not now: the queue is full, or the engine is loading, draining or away. `retry_after_s` is a hint."""

    status = 503
    type = "overloaded_error"
    code = "queue_full"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None, retry_after_s: float = 1.0):
        super().__init__(message, code=code, param=param)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(RamifyError):
    """The request's own deadline passed while it was queued or running."""

    status = 408
    type = "timeout_error"
    code = "deadline_exceeded"


class Aborted(RamifyError):
    """The caller asked for the end of this request."""

    status = 499
    type = "invalid_request_error"
    code = "aborted"


class EngineError(RamifyError):
    """The engine failed at this request: a step that kept failing, a crash survived only once, logits that are not numbers."""

    status = 500
    type = "server_error"
    code = "engine_error"


_BY_CODE: dict[str, type[RamifyError]] = {
    "context_length_exceeded": ContextLengthExceeded,
    "invalid_api_key": AuthenticationFailed,
    "admin_only": PermissionDenied,
    "concurrency_limit": TooManyRequests,
    "model_not_found": ModelNotFound,
    "invalid_model": ModelError,
    "queue_full": Overloaded,
    "loading": Overloaded,
    "draining": Overloaded,
    "engine_unavailable": Overloaded,
    "deadline_exceeded": DeadlineExceeded,
    "aborted": Aborted,
    "engine_error": EngineError,
    "nan_logits": EngineError,
    "internal_error": RamifyError,
}
_CONSTRAINT_CODES = {
    "unsupported_schema",
    "invalid_json_schema",
    "unsatisfiable_grammar",
    "grammar_too_complex",
    "unsupported_regex",
    "invalid_grammar",
}


def from_code(code: str, message: str, param: str | None = None) -> RamifyError:
    """The exception for an error that arrived as a value. An unknown code becomes InvalidRequest with that code."""
    kind = ConstraintError if code in _CONSTRAINT_CODES else _BY_CODE.get(code, InvalidRequest)
    return kind(message, code=code, param=param)
