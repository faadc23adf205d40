"""Scores that need no trained network: holes filled without training, statistics of an image."""
