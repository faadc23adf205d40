"""Render results as pages: report, figures, model card, and pages for several seeds and for comparisons.

The templates hold the HTML and the fixed text; Python here only selects, orders and formats. Nothing is
scored, fitted or decided here.
"""
