"""The detector over HTTP: routes, the queue in front of the scorer, and limits on connections."""
