"""The `openai` client against a real server: what its users call, and what its exceptions and retries make of our errors."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from enum import StrEnum

import openai
import pytest
from pydantic import BaseModel, Field
from serving import RunningServer, Starter

MODEL = "ramify-bundled"
ASKED = [{"role": "user", "content": "Tell me about the sea."}]
VAGUE = [{"role": "user", "content": "qz 17 blue"}]
"""Nothing that one answer follows from."""


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", timeout=240, max_retries=0) as client:
        yield client


def chat(client: openai.OpenAI, **more):
    """A greedy answer of sixteen tokens, unless said otherwise."""
    return client.chat.completions.create(**{"model": MODEL, "messages": ASKED, "max_tokens": 16, "temperature": 0, **more})


# ------------------------------------------------------------------------------------------------------------- models


def test_the_models_are_listed_and_retrieved(client: openai.OpenAI):
    [card] = client.models.list().data
    assert card.id == MODEL and card.object == "model"
    assert client.models.retrieve(MODEL) == card
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("none/such")
    assert error.value.code == "model_not_found"


# --------------------------------------------------------------------------------------------------------------- chat


def test_a_chat_has_an_answer_a_finish_reason_and_usage_with_cached_tokens(client: openai.OpenAI):
    first, again = chat(client), chat(client)
    [choice] = first.choices
    assert first.object == "chat.completion" and first.id.startswith("chatcmpl-") and first.model == MODEL
    assert choice.message.role == "assistant" and choice.message.content and choice.message.refusal is None
    assert choice.finish_reason in ("stop", "length")
    assert first.usage and again.usage and again.usage.prompt_tokens_details
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens
    assert 0 < again.usage.prompt_tokens_details.cached_tokens <= again.usage.prompt_tokens
    assert again.choices[0].message.content == choice.message.content


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI):
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].delta.role for c in chunks if c.choices and c.choices[0].delta.role] == ["assistant"]
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == [
        whole.choices[0].finish_reason
    ]
    assert chunks[-1].choices == [] and chunks[-1].usage and whole.usage
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_clients_own_stream_helper_puts_the_answer_together(client: openai.OpenAI):
    whole = chat(client).choices[0].message.content
    assert whole
    said = {"model": MODEL, "messages": ASKED, "max_tokens": 16, "temperature": 0, "stop": whole[8:10]}
    with client.chat.completions.stream(**said) as stream:
        events = [event.type for event in stream]
        answer = stream.get_final_completion()
    assert "content.delta" in events and events[-1] == "content.done"
    assert answer.choices[0].message.content == whole[: whole.index(whole[8:10])]


class Mood(StrEnum):
    CALM = "calm"
    WILD = "wild"


class Sea(BaseModel):
    """A sea."""

    name: str = Field(max_length=12)
    mood: Mood
    depth: int = Field(ge=0, le=9999)
    waves: list[bool] = Field(min_length=1, max_length=3)


def test_parse_returns_a_pydantic_model(client: openai.OpenAI):
    answer = client.chat.completions.parse(model=MODEL, messages=ASKED, response_format=Sea, max_tokens=200, temperature=0)
    sea = answer.choices[0].message.parsed
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(sea, Sea) and sea.mood in Mood and 0 <= sea.depth <= 9999 and 1 <= len(sea.waves) <= 3


def test_a_json_schema_and_a_json_object_are_kept(client: openai.OpenAI):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"enum": ["x", "y"]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "pair", "schema": schema, "strict": True}}
    for stream in (False, True):
        answer = chat(client, response_format=wanted, max_tokens=100, stream=stream)
        text = (
            "".join(choice.delta.content or "" for chunk in answer for choice in chunk.choices)
            if stream
            else answer.choices[0].message.content
        )
        said = json.loads(text)
        assert set(said) == {"a", "b"} and 0 <= said["a"] <= 99 and said["b"] in ("x", "y")
    begun = chat(client, response_format={"type": "json_object"}, max_tokens=24).choices[0].message.content
    assert begun.lstrip().startswith("{")


def test_logprobs_spell_the_answer_and_the_greedy_token_is_the_first_of_the_top(client: openai.OpenAI):
    answer = chat(client, logprobs=True, top_logprobs=3).choices[0]
    assert answer.logprobs and answer.logprobs.content and answer.logprobs.refusal is None
    spelled = b"".join(bytes(entry.bytes or ()) for entry in answer.logprobs.content)
    assert spelled.decode() == answer.message.content
    for entry in answer.logprobs.content:
        assert len(entry.top_logprobs) == 3 and entry.logprob <= 0
        assert entry.top_logprobs[0].token == entry.token and entry.top_logprobs[0].logprob == entry.logprob


def test_two_samples_are_two_choices_and_the_prompt_is_counted_once(client: openai.OpenAI):
    one = chat(client, messages=VAGUE, temperature=2, seed=1)
    two = chat(client, messages=VAGUE, n=2, temperature=2, seed=1)
    assert [choice.index for choice in two.choices] == [0, 1]
    assert two.choices[0].message.content != two.choices[1].message.content
    assert two.usage and one.usage and two.usage.prompt_tokens == one.usage.prompt_tokens
    assert two.choices[0].message.content == one.choices[0].message.content


def test_a_seed_gives_the_same_text_again_and_another_seed_another(client: openai.OpenAI):
    drawn = [chat(client, messages=VAGUE, temperature=2, seed=seed) for seed in (5, 5, 6)]
    said = [answer.choices[0].message.content for answer in drawn]
    assert said[0] == said[1] != said[2]


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(client: openai.OpenAI):
    whole = chat(client, max_tokens=24).choices[0].message.content
    assert whole and len(whole) > 8
    stop = whole[6:8]
    cut = chat(client, max_tokens=24, stop=[stop, "never said"]).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.message.content == whole[: whole.index(stop)]
    streamed = chat(client, max_tokens=24, stop=stop, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == cut.message.content


def test_a_logit_bias_decides_the_token(client: openai.OpenAI):
    wanted = client.post("/tokenize", body={"prompt": " sea", "add_special_tokens": False}, cast_to=object)["tokens"]  # type: ignore[index]
    answer = chat(client, logit_bias={str(wanted[0]): 100}, max_tokens=3, logprobs=True).choices[0]
    assert len({entry.token for entry in answer.logprobs.content}) == 1


# -------------------------------------------------------------------------------------------------------- completions


def test_text_and_its_token_ids_are_the_same_prompt(client: openai.OpenAI):
    text = "The road goes ever on and"
    ids = client.post("/tokenize", body={"prompt": text}, cast_to=object)["tokens"]  # type: ignore[index]
    said = {"model": MODEL, "max_tokens": 8, "temperature": 0}
    by_text = client.completions.create(prompt=text, **said)
    by_ids = client.completions.create(prompt=ids, **said)
    listed = client.completions.create(prompt=[text, "Once upon a time"], **said)
    listed_ids = client.completions.create(prompt=[ids, ids], **said)
    assert by_text.object == "text_completion" and by_text.id.startswith("cmpl-")
    assert by_ids.choices[0].text == by_text.choices[0].text == listed.choices[0].text
    assert [choice.text for choice in listed_ids.choices] == [by_text.choices[0].text] * 2
    assert [choice.index for choice in listed.choices] == [0, 1]


def test_choices_are_numbered_prompt_by_prompt(client: openai.OpenAI):
    said = {"model": MODEL, "max_tokens": 6, "temperature": 1, "seed": 3}
    alone = [client.completions.create(prompt=prompt, n=2, **said) for prompt in ("One", "Two")]
    both = client.completions.create(prompt=["One", "Two"], n=2, **said)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in both.choices] == [choice.text for answer in alone for choice in answer.choices]


def test_echo_puts_the_prompt_before_the_text(client: openai.OpenAI):
    said = {"model": MODEL, "prompt": "The road", "max_tokens": 6, "temperature": 0}
    plain, echoed = client.completions.create(**said), client.completions.create(echo=True, **said)
    assert echoed.choices[0].text == "The road" + plain.choices[0].text
    chunks = client.completions.create(echo=True, stream=True, **said)
    assert "".join(chunk.choices[0].text for chunk in chunks) == echoed.choices[0].text


@pytest.mark.parametrize("as_ids", [False, True])
@pytest.mark.parametrize("max_tokens", [0, 1])  # the one token may be the end token, which is no text: it is counted all the same
def test_the_harness_gets_the_loglikelihood_of_a_prompt(client: openai.OpenAI, max_tokens: int, as_ids: bool):
    """What lm-eval-harness sends for every choice: echo, logprobs 1, and 1 token or none."""
    text = "The sea is wide and the road is long."
    ids = client.post("/tokenize", body={"prompt": text}, cast_to=object)["tokens"]  # type: ignore[index]
    said = {"model": MODEL, "echo": True, "logprobs": 1, "temperature": 0}
    answer = client.completions.create(prompt=[ids] if as_ids else text, max_tokens=max_tokens, **said).choices[0]
    found = answer.logprobs
    assert found and found.token_logprobs and found.tokens and found.top_logprobs and found.text_offset
    count = len(ids) + max_tokens
    assert [len(column) for column in (found.token_logprobs, found.tokens, found.top_logprobs, found.text_offset)] == [count] * 4
    assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
    assert all(value <= 0 for value in found.token_logprobs[1:])
    assert answer.text.startswith(text) and (max_tokens or answer.text == text)
    for offset, token in list(zip(found.text_offset, found.tokens, strict=True))[1 : len(ids)]:
        assert answer.text[offset:].startswith(token)
    # The best token of each place is at least as likely as the one that stands there; where they are one, it is the same.
    for token, value, top in list(zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True))[1:]:
        assert max(top.values()) >= value and top.get(token, value) == value


def test_a_prompts_logprobs_are_those_of_the_text_when_it_was_drawn(client: openai.OpenAI):
    said = {"model": MODEL, "logprobs": 2, "temperature": 0}
    drawn = client.completions.create(prompt="Once upon", max_tokens=8, **said).choices[0]
    ids = client.post("/tokenize", body={"prompt": "Once upon"}, cast_to=object)["tokens"]  # type: ignore[index]
    more = client.completions.create(
        prompt=ids, max_tokens=8, extra_body={"return_token_ids": True, "ignore_eos": True}, **said
    ).choices[0]
    whole = ids + more.token_ids  # type: ignore[attr-defined]
    echoed = client.completions.create(prompt=whole, max_tokens=0, echo=True, **said).choices[0]
    assert echoed.logprobs and drawn.logprobs and drawn.logprobs.token_logprobs and echoed.logprobs.token_logprobs
    kept = len(drawn.logprobs.token_logprobs)
    assert echoed.logprobs.token_logprobs[len(ids) : len(ids) + kept] == drawn.logprobs.token_logprobs


# ------------------------------------------------------------------------------------------------- errors and retries


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("more", "kind", "code"),
    [
        ({"temperature": 3}, openai.BadRequestError, "out_of_range"),
        ({"messages": []}, openai.BadRequestError, "invalid_messages"),
        ({"max_tokens": 100_000}, openai.BadRequestError, "context_length_exceeded"),
        ({"model": "gpt-none"}, openai.NotFoundError, "model_not_found"),
        ({"extra_body": {"tempature": 1}}, openai.BadRequestError, "unknown_parameter"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}}},
         openai.BadRequestError, "unsatisfiable_grammar"),
        ({"extra_body": {"timeout_s": 0.001, "ignore_eos": True}, "max_tokens": 2000}, openai.APIError, "deadline_exceeded"),
    ],
)  # fmt: skip
def test_an_error_is_the_clients_exception_with_our_code(client: openai.OpenAI, more, kind, code, stream):
    with pytest.raises(kind) as error:
        list(chat(client, stream=stream, **more))
    assert error.value.code == code and error.value.body["message"]  # type: ignore[index]
    assert chat(client, max_tokens=2).usage.completion_tokens <= 2


def test_an_unknown_url_is_not_found_and_says_so_as_json(client: openai.OpenAI):
    with pytest.raises(openai.NotFoundError) as error:
        client.embeddings.create(model=MODEL, input="x")
    assert error.value.code == "unknown_url" and error.value.request_id


def test_a_wrong_key_is_an_authentication_error(server_with: Starter):
    keyed = server_with("--api-key", "right-key")
    with (
        openai.OpenAI(base_url=keyed.url + "/v1", api_key="wrong", max_retries=0) as wrong,
        pytest.raises(openai.AuthenticationError) as error,
    ):
        chat(wrong)
    assert error.value.code == "invalid_api_key" and "right-key" not in str(error.value)
    with openai.OpenAI(base_url=keyed.url + "/v1", api_key="right-key", timeout=240) as right:
        assert chat(right, max_tokens=2).choices


def test_a_deadline_of_the_request_is_not_tried_again(client: openai.OpenAI):
    """The client retries a 408 unless it is told that this helps nobody."""
    eager = client.with_options(max_retries=3)
    started = time.monotonic()
    with pytest.raises(openai.APIStatusError) as error:
        chat(eager, max_tokens=4000, extra_body={"timeout_s": 0.2, "ignore_eos": True})
    assert error.value.status_code == 408
    assert error.value.response.headers["x-should-retry"] == "false"
    assert error.value.response.request.headers["x-stainless-retry-count"] == "0", time.monotonic() - started


def test_a_full_queue_is_retried_by_the_client_until_there_is_room(server_with: Starter):
    small = server_with("--queue", "1", "--max-running", "1")
    with openai.OpenAI(base_url=small.url + "/v1", api_key="none", timeout=240, max_retries=0) as client:
        long = {"max_tokens": 300, "extra_body": {"ignore_eos": True}}
        busy = [threading.Thread(target=chat, args=(client,), kwargs=long) for _ in range(2)]
        for number, thread in enumerate(busy):
            thread.start()
            wanted = {"requests": number + 1, "running": 1, "waiting": number, "preemptions": 0}
            while not wanted.items() <= small.server_info()["scheduler"].items():
                time.sleep(0.01)
        with pytest.raises(openai.InternalServerError) as error:
            chat(client)
        assert error.value.status_code == 503 and error.value.code == "queue_full"
        assert 1 <= int(error.value.response.headers["Retry-After"]) <= 60
        raw = client.with_options(max_retries=100).chat.completions.with_raw_response
        answer = raw.create(model=MODEL, messages=ASKED, max_tokens=2)  # type: ignore[arg-type]
        assert answer.parse().choices and answer.retries_taken >= 1
        for thread in busy:
            thread.join()
