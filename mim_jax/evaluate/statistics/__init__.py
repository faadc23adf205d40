"""AUROC, operating points and their intervals, and the tables made of them, from scores alone."""
