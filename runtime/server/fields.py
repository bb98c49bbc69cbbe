"""What the routes accept: one struct a body, a field a line. Types only; ranges and meanings are in `sampling.py` and beside
each route. `null` means the default everywhere. Unknown names are refused at the top level and ignored further down, where
clients echo back what other servers sent them.
"""

from __future__ import annotations

from typing import Any

import msgspec

ABSENT = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
"""Default of a raw field, which is then as if null had been sent: `is_said` tells. (A plain default has no JSON schema.)"""


def is_said(raw: msgspec.Raw) -> bool:
    """Whether a raw field has a value. Answers only."""
    return bytes(raw) != b"null"


class StreamOptions(msgspec.Struct, kw_only=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class StructuredOutputs(msgspec.Struct, kw_only=True):
    """vLLM's object. json: a schema, or its text."""

    json: msgspec.Raw = ABSENT
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | dict[str, Any] | None = None


class SchemaFormat(msgspec.Struct, kw_only=True):
    name: str
    schema: msgspec.Raw = ABSENT
    description: str | None = None
    strict: bool | None = None


class Structure(msgspec.Struct, kw_only=True):
    begin: str
    end: str
    schema: msgspec.Raw = ABSENT


class ResponseFormat(msgspec.Struct, kw_only=True):
    type: str
    json_schema: SchemaFormat | None = None
    structures: list[Structure] | None = None
    triggers: list[str] | None = None
    format: msgspec.Raw = ABSENT


class Drawn(msgspec.Struct, kw_only=True):
    """What every generating route has in common: how tokens are drawn, when a text ends, and three of the constraints."""

    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    stop_regex: str | list[str] | None = None
    ignore_eos: bool | None = None
    no_stop_trim: bool | None = None
    skip_special_tokens: bool | None = None
    canonical_forced: bool | None = None
    spaces_between_special_tokens: bool | None = None
    regex: str | None = None
    ebnf: str | None = None
    json_schema: str | dict[str, Any] | None = None
    json_whitespace: str | None = None
    stream_interval: Any = None
    custom_params: Any = None


class Sampling(Drawn, kw_only=True, forbid_unknown_fields=True):
    """What every generating route of OpenAI's protocol has in common, SGLang's and vLLM's names included."""

    model: str
    max_tokens: int | None = None
    min_tokens: int | None = None
    include_stop_str_in_output: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Constraints; at most one of them.
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    # About the request itself.
    rid: str | None = None
    request_id: str | None = None
    priority: int | None = None
    timeout_s: float | None = None
    cache_salt: str | None = None
    extra_key: str | None = None
    return_meta_info: bool | None = None
    return_token_ids: bool | None = None
    return_prompt_token_ids: bool | None = None
    # Accepted and without effect here.
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    prompt_cache_options: Any = None
    session_id: Any = None
    return_cached_tokens_details: Any = None
    # Known, and refused where they would change the answer.
    lora_path: Any = None
    custom_logit_processor: Any = None
    logits_processors: Any = None
    use_beam_search: Any = None
    beam_width: Any = None
    length_penalty: Any = None
    bad_words: Any = None
    allowed_token_ids: Any = None
    prompt_embeds: Any = None
    truncate_prompt_tokens: Any = None
    session_params: Any = None
    return_hidden_states: Any = None


REFUSED: dict[str, tuple[Any, ...]] = {
    "lora_path": (None, ""),
    "custom_logit_processor": (None,),
    "custom_params": (None, {}),
    "logits_processors": (None, []),
    "use_beam_search": (None, False),
    "beam_width": (None, 1),
    "length_penalty": (None, 1, 1.0),
    "bad_words": (None, []),
    "allowed_token_ids": (None, []),
    "prompt_embeds": (None,),
    "truncate_prompt_tokens": (None,),
    "session_params": (None, {}),
    "return_hidden_states": (None, False),
}
"""Fields that would change the answer and are not built, with the values that ask for nothing."""


class FunctionCall(msgspec.Struct, kw_only=True):
    name: str
    arguments: str | dict[str, Any] = ""


class ToolCallBody(msgspec.Struct, kw_only=True):
    function: FunctionCall
    id: str | None = None
    type: str | None = None


class Part(msgspec.Struct, kw_only=True):
    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct, kw_only=True):
    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class FunctionBody(msgspec.Struct, kw_only=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(msgspec.Struct, kw_only=True):
    type: str
    function: FunctionBody | None = None


class ChatBody(Sampling, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[ToolBody] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | float | None = None
    verbosity: Any = None
    modalities: list[str] | None = None
    prediction: Any = None
    audio: Any = None
    web_search_options: Any = None
    moderation: Any = None
    functions: Any = None
    function_call: Any = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    chat_template: Any = None
    separate_reasoning: bool | None = None
    stream_reasoning: bool | None = None


class CompletionBody(Sampling, kw_only=True, forbid_unknown_fields=True):
    """POST /v1/completions. prompt: str | [str] | [int] | [[int]]."""

    prompt: msgspec.Raw
    best_of: int | None = None
    echo: bool | None = None
    logprobs: int | None = None
    suffix: str | None = None


class GenerateBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /generate, SGLang's own. prompt (ours): a text, ids, or a list of texts and lists of ids that follow each other."""

    text: str | list[str] | None = None
    input_ids: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    sampling_params: dict[str, Any] | list[dict[str, Any]] | None = None
    rid: str | list[str] | None = None
    stream: bool | None = None
    return_logprob: bool | list[bool] | None = None
    logprob_start_len: int | list[int] | None = None
    top_logprobs_num: int | list[int] | None = None
    token_ids_logprob: list[int] | None = None
    return_text_in_logprobs: bool | None = None
    return_prompt_token_ids: bool | None = None
    priority: int | None = None
    timeout_s: float | None = None
    cache_salt: str | None = None
    extra_key: str | None = None
    model: str | None = None
    no_logs: Any = None
    log_metrics: Any = None
    custom_labels: Any = None
    session_id: Any = None
    conversation_id: Any = None
    routing_key: Any = None
    stream_interval: Any = None
    input_embeds: Any = None
    image_data: Any = None
    video_data: Any = None
    audio_data: Any = None
    lora_path: Any = None
    session_params: Any = None
    custom_logit_processor: Any = None
    return_hidden_states: Any = None
    return_entropy: Any = None
    return_routed_experts: Any = None


REFUSED_NATIVE: dict[str, tuple[Any, ...]] = {
    "input_embeds": (None,),
    "image_data": (None, []),
    "video_data": (None, []),
    "audio_data": (None, []),
    "lora_path": (None, ""),
    "session_params": (None, {}),
    "custom_logit_processor": (None,),
    "return_hidden_states": (None, False),
    "return_entropy": (None, False),
    "return_routed_experts": (None, False),
}


class NativeSampling(Drawn, kw_only=True, forbid_unknown_fields=True):
    """`sampling_params` of /generate."""

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    sampling_seed: int | None = None
    structural_tag: str | dict[str, Any] | None = None


class TokenizeBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /tokenize. prompt (or text): a text; messages: a conversation, rendered by the model's template."""

    model: str | None = None
    prompt: str | None = None
    text: str | None = None
    messages: list[ChatMessage] | None = None
    tools: list[ToolBody] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /detokenize."""

    tokens: msgspec.Raw
    model: str | None = None
    skip_special_tokens: bool | None = None


class AbortBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /abort_request."""

    rid: str | None = None
    abort_all: bool | None = None
