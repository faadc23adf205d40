"""The data sources of the paper, from folders that the user downloaded."""
