"""Bulk scoring: a folder, a glob or a table of images in; Parquet, a row for every one of them, out."""
