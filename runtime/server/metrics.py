"""What Prometheus reads of a server at /metrics: counts of requests, tokens and errors, and how long things took.

Everything is counted once, where it happens: requests by the HTTP side, tokens and waits at the end of a sequence, pool and
queue when somebody looks. A registry of its own, so two servers in a process do not meet.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..protocol import Finished
from ..wire import Heartbeat

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
INTERVAL = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
DURATION = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Intervals(Collector):
    """A histogram for what happens at every token: prometheus_client's own takes locks and walks its buckets in Python."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...], registry: CollectorRegistry):
        self._name, self._text, self._bounds = name, text, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float, count: int) -> None:
        """`count` values of `seconds` each. Changes state. Called from the event loop alone."""
        self._counts[bisect_left(self._bounds, seconds)] += count
        self._sum += seconds * count

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        bounds = [*map(str, self._bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._sum)


class Metrics:
    """All metrics of one server. Labels take few values: a route is its pattern, never the path that a client sent."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def histogram(name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Histogram:
            return Histogram(f"ramify_{name}", text, labels, buckets=buckets, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"ramify_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"ramify_{name}", text, labels, registry=registry)

        self._first_token = histogram("time_to_first_token_seconds", "From the request to its first token.", LATENCY)
        self._between = Intervals("ramify_inter_token_latency_seconds", "Between two tokens of a sequence.", INTERVAL, registry)
        self._duration = histogram("request_duration_seconds", "From the request to the end of its answer.", DURATION, ("route",))
        self._queue = histogram("queue_seconds", "From submission of a sequence to its admission.", LATENCY)
        self._grammar = histogram("grammar_compile_seconds", "A request's wait for its grammar.", LATENCY)
        self._requests = counter("http_requests", "Requests answered.", "route", "status")
        self._errors = counter("errors", "Errors, also those within a stream.", "code")
        self._prompt = counter("prompt_tokens", "Prompt tokens of sequences, by where they came from.", "source")
        self._output = counter("output_tokens", "Tokens generated.")
        self._forced = counter("forced_tokens", "Output tokens that a constraint left no choice about, computed together.")
        self._finished = counter("finished_sequences", "Sequences that ended.", "reason")
        self._preemptions = counter("preemptions", "Sequences whose pages were taken away, to come back later.")
        self._evicted = counter("evicted_tokens", "Cached tokens that gave way to others.")
        self._evicted_pages = counter("evictions", "Cached pages that gave way to others.")
        self._queried = counter("cache_queried_tokens", "Tokens that the prefix cache was asked for.")
        self._hit = counter("cache_hit_tokens", "Tokens that it had.")
        self._steps = counter("engine_steps", "Steps of the engine.")
        self._restarts = counter("engine_restarts", "Engine processes that were started after the first.")
        self._up = gauge("engine_up", "1 while the engine answers.")
        self._running = gauge("running_requests", "Sequences in the batch.")
        self._waiting = gauge("waiting_requests", "Sequences in the queue.")
        self._pool = gauge("kv_pool_tokens", "Room in the KV pool by state; the states sum up to its size.", "state")
        self._sources = {one: self._prompt.labels(one) for one in ("cached", "computed")}
        self._mask_rows = counter("grammar_mask_rows", "Rows of grammar masks that were filled, one for each constrained token.")
        self._mask_seconds = counter("grammar_mask_seconds", "Seconds that filling them took.")
        self._last: dict[str, float] = {}
        self._pid: int | None = None

    # ------------------------------------------------------------------------------------------------- what happened

    def request_ended(self, route: str, status: int, code: str | None, seconds: float) -> None:
        """An answer was sent whole. code: of its error, None or "" without one. Changes state, as all that follow."""
        self._requests.labels(route, str(status)).inc()
        self._duration.labels(route).observe(seconds)
        if code:
            self._errors.labels(code).inc()

    def first_token(self, seconds: float) -> None:
        """The first token of a sequence, `seconds` after its request arrived."""
        self._first_token.observe(seconds)

    def between_tokens(self, seconds: float, count: int = 1) -> None:
        """`count` more tokens of a sequence, `seconds` after those before them: each is taken to have needed its share."""
        self._between.observe(seconds / count, count)

    def finished(self, event: Finished) -> None:
        """A sequence ended. Each of the n samples of a request counts, as each went through the engine."""
        usage, timings = event.usage, event.timings
        self._sources["cached"].inc(usage.cached)
        self._sources["computed"].inc(usage.computed)
        self._forced.inc(usage.forced)
        self._output.inc(usage.output)
        self._finished.labels(event.finish.reason).inc()
        self._queue.observe(timings.queue_s)
        if timings.grammar_s > 0 and event.index == 0:  # the samples of a request wait for one grammar together
            self._grammar.observe(timings.grammar_s)

    # ---------------------------------------------------------------------------------------------- how the engine is

    def engine_stats(self, stats: Mapping[str, Any], heartbeat: Heartbeat | None = None) -> None:
        """What `AsyncEngine.server_info()` answered; {} where it was not asked, and the heartbeat alone counts.

        A new engine process begins its counts again; its pid tells, and what the old one counted stays.
        """
        if not stats and heartbeat is None:
            self._up.set(0)
            return
        self._up.set(1)
        if heartbeat is not None:
            self._running.set(heartbeat.running)
            self._waiting.set(heartbeat.waiting)
        if not stats:
            return
        if self._pid is not None and self._pid != stats["pid"]:
            self._restarts.inc()
            self._last.clear()
        self._pid = stats["pid"]
        cache, scheduler = stats["cache"], stats["scheduler"]
        self._running.set(scheduler["running"])
        self._waiting.set(scheduler["waiting"])
        self._count(self._steps, "steps", stats["steps"])
        self._count(self._preemptions, "preemptions", scheduler["preemptions"])
        self._count(self._mask_rows, "mask_rows", scheduler["mask_rows"])
        self._count(self._mask_seconds, "mask_s", scheduler["mask_s"])
        self._count(self._evicted, "evicted_tokens", cache["evicted_tokens"])
        self._count(self._evicted_pages, "evicted_pages", cache["evicted_pages"])
        self._count(self._queried, "queried_tokens", cache["queried_tokens"])
        self._count(self._hit, "hit_tokens", cache["hit_tokens"])
        pages = {state: cache[state] for state in ("free", "evictable", "private", "draining")}
        for state, count in {**pages, "locked": cache["cached"] - cache["evictable"]}.items():
            self._pool.labels(state).set(count * cache["page_size"])

    def engine_away(self) -> None:
        """The engine does not answer: it is being restarted, or was given up."""
        self._up.set(0)

    def _count(self, counter: Counter, name: str, now: float) -> None:
        """Bring a counter up to what the engine has counted since it began."""
        before = self._last.get(name, 0)
        counter.inc(now - before if now >= before else now)
        self._last[name] = now

    def render(self) -> tuple[bytes, str]:
        """The text that Prometheus reads, and its content type. Answers only."""
        return generate_latest(_Shown(self._registry)), CONTENT_TYPE  # type: ignore[arg-type]  # it is only collected from


class _Shown(Collector):
    """A registry without the `_created` series that prometheus_client puts beside each counter; nobody reads them."""

    def __init__(self, registry: CollectorRegistry):
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [one for one in metric.samples if not one.name.endswith("_created")]
            yield metric
