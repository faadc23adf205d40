"""The data sources of the paper, from folders that a person downloaded."""
