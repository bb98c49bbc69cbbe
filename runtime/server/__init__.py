"""HTTP before the engine: bodies become the protocol's requests, its events become JSON and server-sent events."""
