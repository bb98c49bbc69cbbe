"""An engine process and a server on a GPU: text and JSON come out of them as they do on the CPU."""

from __future__ import annotations

import asyncio
import json

import jsonschema
import pytest

from ramify.constrained.spec import JsonSchema
from ramify.runtime.async_engine import AsyncEngine, complete
from ramify.runtime.bench.server_process import exchange, serving
from ramify.runtime.config import EngineOptions
from ramify.runtime.protocol import Finished, GenerateRequest, SamplingParams, Text, greedy

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "kind": {"enum": ["cat", "dog", "bird"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3},
    },
    "required": ["name", "age", "kind", "tags"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("jump_forward", [True, False])
def test_constrained_text_is_valid_json(device: str, jump_forward: bool) -> None:
    async def generate() -> list[Finished]:
        options = EngineOptions(device=device, threads=2, kv_tokens=20_000, jump_forward=jump_forward)
        async with await AsyncEngine.start(options, in_process=True) as engine:

            async def one(number: int) -> Finished:
                sampling = SamplingParams(max_new_tokens=200, temperature=1.0, seed=number)
                constraint = JsonSchema(json.dumps(SCHEMA))
                [sample] = await complete(engine, GenerateRequest((Text(f"Record {number}: "),), sampling, constraint))
                return sample

            return await asyncio.gather(*(one(number) for number in range(12)))

    ended = [sample for sample in asyncio.run(generate()) if sample.finish.reason == "stop"]
    assert len(ended) >= 10
    for sample in ended:
        jsonschema.validate(json.loads(sample.text), SCHEMA)


def test_an_engine_process_says_what_a_cpu_says(device: str) -> None:
    async def text(where: str) -> str:
        options = EngineOptions(device=where, dtype="float32", threads=2, kv_tokens=4096)
        async with await AsyncEngine.start(options) as engine:
            assert engine.info.device == where
            [sample] = await complete(engine, GenerateRequest((Text("The capital of France is"),), greedy(24)))
            return sample.text

    assert asyncio.run(text(device)) == asyncio.run(text("cpu"))


def test_a_server_answers(device: str) -> None:
    body = json.dumps({"model": "default", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 8}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"

    async def asked() -> bytes:
        async with serving("--device", device, "--kv-tokens", "4096", "--threads", "2") as (_, port):
            return await exchange(port, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    answer = asyncio.run(asked())
    assert b" 200 " in answer[:16], answer[:400]
    said = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert said["usage"]["completion_tokens"] > 0 and said["choices"][0]["message"]["content"]
