"""Metrics: what is counted, under which names, and what one token costs."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from ramify.runtime.protocol import CacheReport, Finish, Finished, Timings, Usage
from ramify.runtime.server.metrics import Metrics
from ramify.runtime.wire import Heartbeat


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """(name, label values...) -> value, as Prometheus reads it."""
    text = metrics.render()[0].decode()
    families = text_string_to_metric_families(text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def finished(index: int = 0, grammar_s: float = 0.2) -> Finished:
    return Finished(
        index=index,
        text="",
        prompt_ids=b"",
        output_ids=b"",
        held=b"",
        tail="",
        finish=Finish("stop"),
        usage=Usage(prompt=10, cached=6, computed=3, forced=1, output=4),
        timings=Timings(queue_s=0.02, grammar_s=grammar_s),
        cache=CacheReport(),
    )


def stats(pid: int = 1, **counts: Any) -> dict[str, Any]:
    cache = {"total": 10, "free": 4, "cached": 3, "evictable": 2, "private": 2, "draining": 1, "page_size": 16}
    cache |= {"evicted_tokens": 32, "evicted_pages": 2, "queried_tokens": 100, "hit_tokens": 60}
    scheduler = {"running": 2, "waiting": 5, "preemptions": 3, "mask_rows": 8, "mask_s": 0.5, **counts}
    return {"pid": pid, "steps": 7, "cache": cache, "scheduler": scheduler}


def test_requests_are_counted_by_route_and_status_and_errors_by_code() -> None:
    metrics = Metrics()
    metrics.request_ended("/v1/chat/completions", 200, None, 0.3)
    metrics.request_ended("/v1/chat/completions", 400, "invalid_json", 0.001)
    metrics.request_ended("/v1/chat/completions", 200, "engine_error", 0.3)
    seen = samples(metrics)
    assert seen["ramify_http_requests_total", "/v1/chat/completions", "200"] == 2
    assert seen["ramify_errors_total", "invalid_json"] == seen["ramify_errors_total", "engine_error"] == 1
    assert seen["ramify_request_duration_seconds_count", "/v1/chat/completions"] == 3


def test_tokens_are_counted_by_where_they_came_from() -> None:
    metrics = Metrics()
    metrics.finished(finished())
    metrics.finished(finished(index=1))
    seen = samples(metrics)
    assert [seen["ramify_prompt_tokens_total", one] for one in ("cached", "computed")] == [12, 6]
    assert seen["ramify_forced_tokens_total",] == 2
    assert seen["ramify_output_tokens_total",] == 8 and seen["ramify_finished_sequences_total", "stop"] == 2
    assert seen["ramify_queue_seconds_count",] == 2 and seen["ramify_grammar_compile_seconds_count",] == 1


def test_latencies_of_tokens_fall_into_their_buckets() -> None:
    metrics = Metrics()
    metrics.first_token(0.3)
    metrics.between_tokens(0.04, 2)
    metrics.between_tokens(0.02)
    metrics.between_tokens(99.0)
    seen = samples(metrics)
    assert seen["ramify_time_to_first_token_seconds_bucket", "0.25"] == 0
    assert seen["ramify_time_to_first_token_seconds_bucket", "0.5"] == 1
    buckets = [seen["ramify_inter_token_latency_seconds_bucket", bound] for bound in ("0.015", "0.02", "2.5", "+Inf")]
    assert buckets == [0, 3, 3, 4] and seen["ramify_inter_token_latency_seconds_count",] == 4
    assert abs(seen["ramify_inter_token_latency_seconds_sum",] - 99.06) < 1e-9


def test_the_states_of_the_pool_sum_up_to_its_size() -> None:
    metrics = Metrics()
    metrics.engine_stats(stats(), Heartbeat(steps=6, running=1, waiting=1))
    seen = samples(metrics)
    pool = {labels[0]: value for (name, *labels), value in seen.items() if name == "ramify_kv_pool_tokens"}
    assert pool == {"free": 64, "evictable": 32, "locked": 16, "private": 32, "draining": 16} and sum(pool.values()) == 160
    assert seen["ramify_running_requests",] == 2 and seen["ramify_waiting_requests",] == 5
    assert seen["ramify_evictions_total",] == 2 and seen["ramify_evicted_tokens_total",] == 32
    assert seen["ramify_grammar_mask_rows_total",] == 8 and seen["ramify_grammar_mask_seconds_total",] == 0.5
    assert seen["ramify_cache_hit_tokens_total",] == 60 and seen["ramify_preemptions_total",] == 3


def test_counts_go_on_where_an_engine_was_lost() -> None:
    metrics = Metrics()
    for one in (stats(), stats(preemptions=4), stats(pid=2, preemptions=1), stats(pid=2, preemptions=2)):
        metrics.engine_stats(one, None)
    seen = samples(metrics)
    assert seen["ramify_preemptions_total",] == 6 and seen["ramify_engine_restarts_total",] == 1
    assert seen["ramify_engine_up",] == 1
    metrics.engine_away()
    assert samples(metrics)["ramify_engine_up",] == 0


def test_a_heartbeat_alone_tells_the_queue() -> None:
    metrics = Metrics()
    metrics.engine_stats({}, Heartbeat(steps=6, running=1, waiting=4))
    assert samples(metrics)["ramify_waiting_requests",] == 4 and samples(metrics)["ramify_engine_up",] == 1
    metrics.engine_stats({}, None)
    assert samples(metrics)["ramify_engine_up",] == 0


def test_names_follow_prometheus_and_two_servers_do_not_meet() -> None:
    first, second = Metrics(), Metrics()
    first.first_token(1.0)
    assert samples(second)["ramify_time_to_first_token_seconds_count",] == 0
    text, kind = first.render()
    assert kind.startswith("text/plain; version=0.0.4") and b"_created" not in text
    for family in text_string_to_metric_families(text.decode()):
        assert family.name.startswith("ramify_") and family.documentation.endswith(".")
        # the parser takes `_total` off a counter's name
        assert family.type in {"gauge", "counter"} or family.name.endswith("_seconds")


def test_observing_a_token_costs_at_most_two_microseconds() -> None:
    """The best of many short runs: what it costs, not what else the machine does."""
    metrics = Metrics()
    observe, best = metrics.between_tokens, float("inf")
    for _ in range(200):
        started = time.perf_counter()
        for _ in range(500):
            observe(0.012, 1)
        best = min(best, (time.perf_counter() - started) / 500)
    assert best <= 2e-6
