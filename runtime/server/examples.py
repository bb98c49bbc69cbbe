"""Bodies and answers that /openapi.json shows, by the name of their handler. A test sends each body to a server.

{model} stands for the name of the model that is served.
"""

from __future__ import annotations

from typing import Any

_PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "mood": {"enum": ["positive", "negative", "neutral"]}},
    "required": ["name", "mood"],
    "additionalProperties": False,
}
_BRUNO = [{"role": "user", "content": "My name is Bruno."}]
_CONVERSATION = [
    *_BRUNO,
    {"role": "assistant", "content": "I see. Your name is Bruno."},
    {"role": "user", "content": "What is my name?"},
]
_REVIEW = [{"role": "user", "content": "Classify the review as positive, negative or neutral: The new lamp is wonderful."}]
_NUMBER = {"type": "integer"}
_ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"a": _NUMBER, "b": _NUMBER},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}

# handler -> title -> body; the first is what the page starts with.
BODIES: dict[str, dict[str, Any]] = {
    "chat": {
        "A streamed answer": {
            "model": "{model}",
            "messages": _BRUNO,
            "temperature": 0,
            "max_tokens": 64,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        "A conversation": {"model": "{model}", "messages": _CONVERSATION, "temperature": 0, "max_tokens": 64},
        "JSON by a schema": {
            "model": "{model}",
            "messages": [{"role": "user", "content": "My name is Bruno. The new lamp is wonderful."}],
            "temperature": 0,
            "max_tokens": 64,
            "response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": _PERSON}},
        },
        "A call of a function": {
            "model": "{model}",
            "messages": [{"role": "user", "content": "What is 27 plus 58?"}],
            "temperature": 0,
            "max_tokens": 64,
            "tools": [_ADD],
            "tool_choice": "required",
            "parallel_tool_calls": False,
        },
        "One of three words": {
            "model": "{model}",
            "messages": _REVIEW,
            "temperature": 0,
            "structured_outputs": {"choice": ["positive", "negative", "neutral"]},
        },
        "Three samples, and why they cost what they did": {
            "model": "{model}",
            "messages": _BRUNO,
            "n": 3,
            "seed": 7,
            "temperature": 1,
            "max_tokens": 32,
            "return_meta_info": True,
        },
        "Log-probabilities": {
            "model": "{model}",
            "messages": _BRUNO,
            "temperature": 0,
            "max_tokens": 8,
            "logprobs": True,
            "top_logprobs": 2,
        },
    },
    "completions": {
        "A text": {"model": "{model}", "prompt": "Once upon a time", "max_tokens": 16, "temperature": 0},
        "Two prompts, streamed": {
            "model": "{model}",
            "prompt": ["Once upon a time", "What is the capital of France?"],
            "max_tokens": 16,
            "temperature": 0,
            "stream": True,
        },
        "Token ids, echoed with log-probabilities": {
            "model": "{model}",
            "prompt": [1080, 963],
            "max_tokens": 4,
            "temperature": 0,
            "echo": True,
            "logprobs": 1,
        },
        "A pattern": {
            "model": "{model}",
            "prompt": "My phone number is ",
            "regex": "[0-9]{3}-[0-9]{4}",
            "max_tokens": 16,
            "temperature": 0,
        },
    },
    "generate": {
        "A text": {"text": "Once upon a time", "sampling_params": {"max_new_tokens": 16, "temperature": 0}},
        "Ids, continued by text": {
            "prompt": [[1080, 963], ". My name is"],
            "sampling_params": {"max_new_tokens": 16, "temperature": 0},
            "return_prompt_token_ids": True,
        },
        "A stream of the text so far": {
            "text": "Once upon a time",
            "sampling_params": {"max_new_tokens": 16, "temperature": 0},
            "stream": True,
        },
        "A batch": {
            "text": ["Once upon a time", "What is the capital of France?"],
            "sampling_params": [{"max_new_tokens": 8, "temperature": 0}, {"max_new_tokens": 16, "temperature": 0}],
        },
        "The prompt alone, with its log-probabilities": {
            "text": "My name is Bruno.",
            "sampling_params": {"max_new_tokens": 0},
            "return_logprob": True,
            "logprob_start_len": 0,
        },
    },
    "tokenize": {
        "A text": {"prompt": "Hello there", "return_token_strs": True},
        "A conversation": {"messages": _BRUNO, "add_generation_prompt": True},
    },
    "detokenize": {"Ids": {"tokens": [1080, 963]}},
    "abort_request": {"One request": {"rid": "my-request"}, "Every request": {"abort_all": True}},
    "program_generate": {
        "A text": {
            "type": "generate",
            "prompt": [{"type": "text", "text": "Once upon a time"}],
            "sampling": {"max_new_tokens": 16, "temperature": 0},
        }
    },
    "program_score": {
        "Three choices": {
            "type": "score",
            "prompt": [{"type": "text", "text": "The new lamp is wonderful. That is"}],
            "choices": [" positive", " negative", " neutral"],
        }
    },
}

_USAGE = {
    "prompt_tokens": 16,
    "completion_tokens": 14,
    "total_tokens": 30,
    "prompt_tokens_details": {"cached_tokens": 15},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
_CARD = {
    "id": "{model}",
    "object": "model",
    "created": 1767225600,
    "owned_by": "ramify",
    "root": "{model}",
    "parent": None,
    "max_model_len": 8192,
}

# handler -> an answer
ANSWERS: dict[str, Any] = {
    "chat": {
        "id": "chatcmpl-a9728115e9444766b0073ccc550d1413",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "{model}",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "I see. Your name is Bruno.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
                "matched_stop": 4093,
                "stop_reason": None,
            }
        ],
        "usage": _USAGE,
    },
    "completions": {
        "id": "cmpl-0666d8fab84d489ca63aa501405fcab1",
        "object": "text_completion",
        "created": 1767225600,
        "model": "{model}",
        "choices": [
            {"index": 0, "text": " there was a cook called Ruth who lived in Zub.", "logprobs": None, "finish_reason": "length"}
        ],
        "usage": _USAGE,
    },
    "generate": {
        "text": " The capital",
        "output_ids": [220, 365, 220, 643],
        "meta_info": {
            "id": "5013a6c98d4d407496d9d2a627fe964f",
            "finish_reason": {"type": "length", "length": 4},
            "prompt_tokens": 4,
            "completion_tokens": 4,
            "cached_tokens": 3,
            "computed_tokens": 1,
            "forced_tokens": 0,
            "e2e_latency": 0.061,
            "queue_time": 0.0003,
            "prefill_time": 0.011,
            "decode_time": 0.048,
            "grammar_time": 0.0,
            "mask_time": 0.0,
            "seed": 4425854617971747568,
        },
    },
    "models": {"object": "list", "data": [_CARD]},
    "model": _CARD,
    "tokenize": {"tokens": [1080, 963], "count": 2, "max_model_len": 8192, "token_strs": ["Hello", " there"]},
    "detokenize": {"text": "Hello there"},
    "flush_cache": {"tokens": 37},
    "abort_request": {"aborted": 1},
    "health": {"status": "ready"},
    "ready": {"status": "ready"},
    "health_generate": {"status": "ready"},
    "version": {"version": "0.1.0"},
}

ERROR = {
    "error": {
        "message": "temperature is 3; it must be at least 0 and at most 2.",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "out_of_range",
    }
}


def with_model(value: Any, model: str) -> Any:
    """The value with the name of the model in the place of {model}. Pure."""
    if isinstance(value, str):
        return value.replace("{model}", model)
    if isinstance(value, dict):
        return {key: with_model(one, model) for key, one in value.items()}
    return [with_model(one, model) for one in value] if isinstance(value, list) else value
