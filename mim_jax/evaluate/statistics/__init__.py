"""AUROC, operating points, their intervals, and the resulting tables, from scores alone."""
