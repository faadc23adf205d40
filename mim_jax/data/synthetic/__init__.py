"""The embedded procedural images, so that everything runs with nothing downloaded."""
