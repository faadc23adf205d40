"""Frozen networks, and the paper's measure taken in their features: the detector that trains nothing."""
