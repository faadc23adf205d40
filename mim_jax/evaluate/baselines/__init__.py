"""Baseline scores that need no trained network: fills without training, and image statistics."""
