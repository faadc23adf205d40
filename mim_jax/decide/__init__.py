"""From scores to decisions with a stated guarantee; NumPy and SciPy alone."""
