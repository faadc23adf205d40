"""From scored test images to results: test set, methods, decisions, robustness, comparison."""
