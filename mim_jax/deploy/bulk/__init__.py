"""Bulk scoring: from a folder, glob or table of images to Parquet with one row per image."""
