"""What the OpenAPI document promises, against requests that schemathesis makes of it: never a 5xx, errors in one form."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from http_calls import MODEL, assert_still_good, call
from hypothesis import HealthCheck, Phase, given, settings

from ramify.runtime.server.fields import REFUSED, REFUSED_NATIVE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
EXAMPLES = 40
DEADLINE_S = 1.0


@pytest.fixture(scope="module")
def server(server_with):
    """Whatever is asked for, it takes no longer than this."""
    return server_with("--request-timeout-s", str(DEADLINE_S))


def towards_the_engine(body: Any) -> Any:
    """A body of which less is refused at first sight: the model's name, and nothing that no model here could do."""
    if not isinstance(body, dict):
        return body
    served = {name: value for name, value in body.items() if name not in (*REFUSED, *REFUSED_NATIVE)}
    return {**served, "model": MODEL} if "model" in body else served


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_no_request_of_the_document_is_answered_with_a_mistake_of_ours(server, mode: str) -> None:
    import schemathesis
    from schemathesis import GenerationMode

    document = call(server.port, "/openapi.json").json
    api = schemathesis.openapi.from_dict(document)
    chosen = GenerationMode.POSITIVE if mode == "positive" else GenerationMode.NEGATIVE
    failures: list[str] = []
    answers: Counter[int] = Counter()
    for found in api.get_all_operations():
        operation = found.ok()
        if chosen is GenerationMode.NEGATIVE and operation.method.upper() == "GET" and "{" not in operation.path:
            continue

        @settings(
            max_examples=EXAMPLES if operation.method.upper() == "POST" else 5,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=chosen))
        def run(case) -> None:
            if chosen is GenerationMode.POSITIVE:
                case.body = towards_the_engine(case.body)
            case.headers = {**(case.headers or {}), "X-Request-Id": "fuzz"}
            response = case.call(base_url=server.url, timeout=60)
            sent = json.dumps(case.body, default=repr)[:2000]
            answers[response.status_code] += 1
            if response.status_code >= 500:
                failures.append(f"{case.method} {case.path} {response.status_code} {response.text[:300]} for {sent}")
            elif response.status_code >= 400 and case.method != "HEAD":
                error = response.json()["error"]
                assert set(error) == {"message", "type", "param", "code"}, (error, sent)

        try:
            run()
        except Exception as error:
            if type(error).__name__ not in ("Unsatisfiable", "Unsatisfied"):
                raise
    assert not failures, "\n".join(failures[:20])
    assert answers[200] > 50 if chosen is GenerationMode.POSITIVE else answers[400] > 100, answers
    assert "a handler failed" not in server.logged()
    assert_still_good(server.port)
