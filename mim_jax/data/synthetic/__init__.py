"""The embedded procedural images, so that everything runs without downloads."""
