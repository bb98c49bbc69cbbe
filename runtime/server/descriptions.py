"""What the fields of `fields.py` mean, for /openapi.json: group -> field -> its meaning. A test holds that none is missing.

A field means the same on every route that has it; where it does not, OWN says so. BOUNDS and KINDS say what its type cannot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from .fields import REFUSED, REFUSED_NATIVE

GROUPS: dict[str, dict[str, str]] = {
    "Request": {
        "model": "Name of the model, as GET /v1/models lists it; or default, the one that is served.",
        "messages": "The conversation, oldest first. It is rendered by the model's own chat template.",
        "prompt": "What to continue: a text, a list of texts, token ids, or a list of lists of ids. Each is a prompt of its own.",
        "text": "What to continue: a text, or several.",
        "input_ids": "What to continue, as token ids, or several lists of them.",
        "sampling_params": "How tokens are chosen and when to stop: one object for all prompts, or a list with one for each.",
        "suffix": "Not built: text after the completion.",
        "tokens": "Token ids.",
        "stream": "Answer with server-sent events as tokens are made.",
        "stream_options": "What a stream holds beside the text. Only with stream: true.",
        "n": "Samples of each prompt, at most `--max-n`. The prompt is computed once.",
        "best_of": "Draw so many samples, and return the n with the highest mean log-probability. Not in a stream.",
        "echo": "Return the prompt before the completion.",
        "max_tokens": "Most tokens of the answer. Without it, what the context has room for.",
        "max_completion_tokens": "The same by OpenAI's newer name; it goes before max_tokens.",
        "max_new_tokens": "Most tokens of the answer; 0 only computes the prompt.",
        "logprobs": "Return the log-probability of each output token.",
        "top_logprobs": "So many of the likeliest tokens beside each output token. Needs logprobs.",
        "return_logprob": "Return the log-probabilities of output tokens; a list says it for each prompt.",
        "logprob_start_len": "First prompt token whose log-probability is wanted; -1 for none.",
        "top_logprobs_num": "So many of the likeliest tokens beside each.",
        "token_ids_logprob": "Also the log-probabilities of these ids at each position.",
        "return_text_in_logprobs": "Return the text of each token beside its id.",
    },
    "Chat": {
        "tools": "Functions that the model may call, shown to it by its chat template.",
        "tool_choice": "none: calls are not looked for. auto: the model decides. required: it must call. A function, or "
        "allowed_tools: only these. What is said here is enforced by a grammar.",
        "parallel_tool_calls": "false: at most one call, enforced by a grammar.",
        "separate_reasoning": "false: reasoning stays in the content, where the model has a channel for it.",
        "reasoning_effort": "Passed to the template as reasoning_effort, and as enable_thinking, which is false for none.",
        "continue_final_message": "Go on within the last message, where it ends, instead of beginning a new turn.",
        "add_generation_prompt": "End the prompt with the header of an assistant's turn. True unless said.",
        "chat_template_kwargs": "More variables for the chat template, such as enable_thinking.",
        "add_special_tokens": "Put before a text what the tokenizer puts before every text. True unless said.",
        "return_token_strs": "Return the text of each token too.",
    },
    "Sampling": {
        "temperature": "0 is greedy. Without it, the model's generation_config.json decides, else 1.",
        "top_p": "Draw from the likeliest tokens that make up this probability.",
        "top_k": "Draw from so many of the likeliest tokens; -1 and 0 are off.",
        "min_p": "Drop tokens less likely than this share of the likeliest.",
        "frequency_penalty": "Taken from the logit of a token for each time it is in the output.",
        "presence_penalty": "Taken once from the logit of every token that is in the output.",
        "repetition_penalty": "Divides positive logits, and multiplies negative ones, of tokens in prompt and output; 1 is off.",
        "logit_bias": "Token id, as a string, to a number that is added to its logit.",
        "seed": "The same seed draws the same text. Without it, one is drawn and reported in meta_info.",
        "sampling_seed": "SGLang's name for seed.",
        "stop": "Texts that end the answer, and are not part of it. At most `--max-stop`.",
        "stop_token_ids": "Tokens that end the answer.",
        "stop_regex": "Patterns that end the answer.",
        "min_tokens": "Fewest tokens before an end token or a stop may end the answer.",
        "min_new_tokens": "Fewest tokens before an end token or a stop may end the answer.",
        "ignore_eos": "Go on where the model would end.",
        "no_stop_trim": "Leave a matched stop text in the answer.",
        "include_stop_str_in_output": "vLLM's name for no_stop_trim.",
        "skip_special_tokens": "Leave special tokens out of the text. True unless said.",
        "canonical_forced": "Where a constraint leaves no choice, write the text with the tokenizer's own tokens, computed "
        "together. True unless said.",
        "spaces_between_special_tokens": "Only true is taken.",
    },
    "Constraints": {
        "response_format": "OpenAI's: the answer is text, a JSON object, or JSON that is valid under a schema.",
        "regex": "The answer matches this pattern, from its first to its last character.",
        "ebnf": "The answer is derived from the rule root of this grammar.",
        "json_whitespace": "any: JSON under a schema may be laid out with spaces and lines. Unless said it is compact.",
        "json_schema": "The answer is JSON that is valid under this schema, given as an object or as its text.",
        "structured_outputs": "vLLM's: one of json, regex, choice, grammar, json_object.",
        "guided_json": "vLLM's older name for json_schema.",
        "guided_regex": "vLLM's older name for regex.",
        "guided_choice": "The answer is one of these texts.",
        "guided_grammar": "vLLM's older name for ebnf.",
    },
    "Handling": {
        "rid": "What POST /abort_request calls this request. Need not be unique.",
        "request_id": "vLLM's name for rid.",
        "priority": "Higher keeps its memory where that is short; with `--schedule priority`, higher is also admitted first.",
        "timeout_s": "Seconds that the request may take, its wait included, at most `--request-timeout-s`. Then: 408.",
        "cache_salt": "Cached prefixes are shared only with requests of the same key that have the same salt.",
        "extra_key": "Sets requests apart in the cache as cache_salt does, and beside it.",
        "return_meta_info": "Return SGLang's meta_info: times, cached tokens, the seed, and why the cache answered as it did.",
        "return_token_ids": "Return the ids of the answer's tokens.",
        "return_prompt_token_ids": "Return the ids of the prompt's tokens.",
        "abort_all": "End every request.",
    },
    "Without effect": dict.fromkeys(
        (
            "user",
            "metadata",
            "store",
            "service_tier",
            "safety_identifier",
            "prompt_cache_key",
            "prompt_cache_retention",
            "prompt_cache_options",
            "stream_interval",
            "session_id",
            "return_cached_tokens_details",
            "verbosity",
            "prediction",
            "web_search_options",
            "moderation",
            "stream_reasoning",
            "no_logs",
            "log_metrics",
            "custom_labels",
            "conversation_id",
            "routing_key",
        ),
        "Accepted, so that clients need not be changed; nothing follows from it.",
    ),
    "Not built": dict.fromkeys(
        (*REFUSED, *REFUSED_NATIVE),
        "Would change the answer and is not built: only values that ask for nothing are taken.",
    )
    | {
        "modalities": "Only text.",
        "audio": "Not built: this model writes text only.",
        "functions": "Replaced by tools.",
        "function_call": "Replaced by tool_choice: only none and auto are taken.",
        "chat_template": "Not taken from requests: the model's own is used.",
    },
}

_TAGS = (
    "Free text until a trigger, then a tag, then free text again: {structures: [{begin, schema, end}], triggers}, "
    "or {format: ...}; an object, or its text."
)

# struct -> field -> what it means there alone; also for the structs within a body.
OWN: dict[str, dict[str, str]] = {
    "CompletionBody": {
        "max_tokens": "Most tokens of the answer; 16 unless said. 0 only with echo.",
        "logprobs": "Return the log-probability of each token, and so many of the likeliest beside it.",
    },
    "GenerateBody": {
        "prompt": "One prompt made of pieces: a text, ids, or a list of texts and lists of ids that follow each other. Text "
        "behind ids is tokenised as their continuation, so ids of an earlier answer are never tokenised again.",
        "rid": "What POST /abort_request calls this request. Need not be unique.",
    },
    "NativeSampling": {"temperature": "0 is greedy; any number from 0 on.", "structural_tag": _TAGS},
    "TokenizeBody": {
        "model": "Without effect: one model is served.",
        "prompt": "A text to tokenise. Give it, or messages.",
        "text": "Another name for prompt.",
        "messages": "A conversation to render by the chat template and tokenise.",
        "tools": "Tools to render with the conversation.",
    },
    "DetokenizeBody": {"model": "Without effect: one model is served.", "skip_special_tokens": "Leave special tokens out."},
    "AbortBody": {"rid": "End the requests that have this label."},
    "StreamOptions": {
        "include_usage": "End the stream with a chunk that has the usage and no choices.",
        "continuous_usage_stats": "Also put the usage so far into the last chunk of each choice.",
        "include_obfuscation": "Accepted; nothing is padded.",
    },
    "StructuredOutputs": {
        "json": "A JSON schema, as an object or as its text.",
        "regex": "A pattern for the whole answer.",
        "choice": "The answer is one of these texts.",
        "grammar": "A grammar with the rule root.",
        "json_object": "The answer is any JSON object.",
        "structural_tag": _TAGS,
    },
    "ResponseFormat": {
        "type": "What the answer is.",
        "json_schema": "For the type json_schema.",
        "structures": "For the type structural_tag: what may follow the triggers.",
        "triggers": "Texts after which one of the structures comes that begins with it.",
        "format": "Or the later form: an object of type triggered_tags, tags_with_separator or tag.",
    },
    "Structure": {
        "begin": "How the tag begins; with one of the triggers.",
        "schema": "The JSON schema of what is in it. Without one: any JSON object.",
        "end": "How it ends.",
    },
    "SchemaFormat": {
        "name": "A name, which OpenAI's clients must give.",
        "schema": "The JSON schema. It is enforced exactly, or refused with the keyword that cannot be.",
        "description": "Accepted; the model does not see it.",
        "strict": "false: what cannot be enforced of the schema is left out, and each choice lists it in `not_enforced`. Unless "
        "said the whole schema is enforced, or refused.",
    },
    "ChatMessage": {
        "role": "Who speaks. developer is system, function is tool.",
        "content": "A text, or a list of text parts. Text that looks like a control token stays text.",
        "name": "Passed to the template.",
        "tool_calls": "Calls that the assistant made.",
        "tool_call_id": "The call that a message of the role tool answers.",
        "reasoning_content": "Reasoning of an earlier answer, for templates that show it.",
        "reasoning": "The same by vLLM's name.",
    },
    "Part": {"type": "Kind of the part; images and audio are refused.", "text": "Its text."},
    "ToolBody": {"type": "Kind of the tool.", "function": "The function."},
    "FunctionBody": {
        "name": "1 to 64 letters, digits, _ or -.",
        "description": "What it does, for the model.",
        "parameters": "JSON schema of its arguments, for the model. Calls obey it where a grammar for it is cheap.",
        "strict": "true: calls always obey the schema, and a schema that cannot be enforced is refused.",
    },
    "ToolCallBody": {"id": "Its id.", "type": "Kind of the call.", "function": "What was called."},
    "FunctionCall": {"name": "Name of the function.", "arguments": "Its arguments: JSON text, or the object itself."},
}

_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, "minItems": 1}
_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "array", "items": _TEXT, "minItems": 1}
_SCHEMA = {"type": ["object", "string", "null"]}

# struct -> field -> its JSON schema, where the struct's type is looser, because the handler reads it.
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "CompletionBody": {"prompt": {"anyOf": [_TEXT, _TEXTS, _IDS, {"type": "array", "items": _IDS, "minItems": 1}]}},
    "GenerateBody": {
        "prompt": {
            "anyOf": [
                _TEXT,
                _IDS,
                {"type": "array", "minItems": 1, "items": {"anyOf": [_TEXT, _IDS]}},
                {"type": "null"},
            ]
        },
        "input_ids": {"anyOf": [_IDS, {"type": "array", "items": _IDS, "minItems": 1}, {"type": "null"}]},
        "sampling_params": {
            "anyOf": [
                {"$ref": "#/components/schemas/NativeSampling"},
                {"type": "array", "items": {"$ref": "#/components/schemas/NativeSampling"}},
                {"type": "null"},
            ]
        },
    },
    "DetokenizeBody": {"tokens": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}}},
    "StructuredOutputs": {"json": _SCHEMA},
    "Structure": {"schema": _SCHEMA},
    "SchemaFormat": {"schema": _SCHEMA},
    "ResponseFormat": {
        "type": {"enum": ["text", "json_object", "json_schema", "structural_tag"]},
        "format": {"type": ["object", "null"]},
    },
    "ToolBody": {"type": {"enum": ["function"]}},
    "Part": {"type": {"enum": ["text", "refusal", "input_text", "output_text"]}},
    "ChatMessage": {"role": {"enum": ["developer", "system", "user", "assistant", "tool", "function"]}},
    "ChatBody": {"chat_template": {"type": "null"}, "audio": {"type": "null"}},
}

BOUNDS: dict[str, dict[str, Any]] = {
    "n": {"minimum": 1},
    "best_of": {"minimum": 1, "maximum": 20},
    "max_tokens": {"minimum": 1, "maximum": 2**31 - 1},
    "max_completion_tokens": {"minimum": 1, "maximum": 2**31 - 1},
    "max_new_tokens": {"minimum": 0, "maximum": 2**31 - 1},
    "min_tokens": {"minimum": 0, "maximum": 2**31 - 1},
    "min_new_tokens": {"minimum": 0, "maximum": 2**31 - 1},
    "temperature": {"minimum": 0, "maximum": 2},
    "top_p": {"exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"minimum": -1, "maximum": 2**31 - 1},
    "min_p": {"minimum": 0, "maximum": 1},
    "frequency_penalty": {"minimum": -2, "maximum": 2},
    "presence_penalty": {"minimum": -2, "maximum": 2},
    "repetition_penalty": {"exclusiveMinimum": 0, "maximum": 2},
    "seed": {"minimum": -(2**63), "maximum": 2**63 - 1},
    "top_logprobs": {"minimum": 0},
    "timeout_s": {"exclusiveMinimum": 0, "maximum": 1e6},
    "cache_salt": {"minLength": 1, "maxLength": 1024},
    "extra_key": {"minLength": 1, "maxLength": 1024},
}
# Where the same name has other bounds.
OWN_BOUNDS: dict[str, dict[str, dict[str, Any]]] = {
    "CompletionBody": {"max_tokens": {"minimum": 0, "maximum": 2**31 - 1}, "logprobs": {"minimum": 0}},
    "NativeSampling": {"temperature": {"minimum": 0, "maximum": 1e6}},
}

BODIES = ("ChatBody", "CompletionBody", "GenerateBody", "NativeSampling", "TokenizeBody", "DetokenizeBody", "AbortBody")
"""The structs whose fields GROUPS describes; those within them have all their texts in OWN."""
_GROUP_OF = {name: group for group, fields in GROUPS.items() for name in fields}


def described(struct: str, schema: dict[str, Any], refused: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """A struct's JSON schema with the meaning, the group (`x-group`) and the bounds of its fields. refused: fields that are
    not built, with the values that ask for nothing. Pure."""
    properties = {}
    for name, said in schema.get("properties", {}).items():
        field = deepcopy(said)
        if name in KINDS.get(struct, {}):
            kept = {"default": None} if "default" in said or name not in schema.get("required", ()) else {}
            field = {**deepcopy(KINDS[struct][name]), **kept}
        elif name in refused:
            field = {"enum": [value for value in refused[name] if not isinstance(value, float)], "default": None}
        _bound(field, OWN_BOUNDS.get(struct, {}).get(name) or BOUNDS.get(name, {}))
        group = _GROUP_OF.get(name) if struct in BODIES else None
        text = OWN.get(struct, {}).get(name) or (GROUPS[group][name] if group else None)
        properties[name] = {**field, **({"description": text} if text else {}), **({"x-group": group} if group else {})}
    return {**schema, "properties": properties} if properties else schema


def _bound(field: dict[str, Any], bounds: dict[str, Any]) -> None:
    """Give bounds to the variants of a field that are a number or a text. Changes the field."""
    kinds = ("string",) if "maxLength" in bounds else ("integer", "number")
    for variant in (field, *field.get("anyOf", ())):
        if variant.get("type") in kinds:
            variant.update(bounds)
