"""HTTP: a source that polls with a cursor, a sink that posts with an idempotency key."""
