"""The system itself: health, version, metrics, stored answers of idempotent requests."""
