"""Results as pages: report, figures, model card, and the pages of seeds and comparisons.

The templates hold the HTML and the fixed words; Python here only picks, orders and formats. Nothing is
scored, fitted or decided here.
"""
