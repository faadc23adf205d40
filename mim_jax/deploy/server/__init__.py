"""The detector over HTTP: routes, the scoring queue, and connection limits."""
