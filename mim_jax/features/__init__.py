"""Detectors without training: the paper's histogram measure on the features of frozen networks."""
