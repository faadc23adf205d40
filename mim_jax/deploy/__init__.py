"""Deployment of a trained detector: exports, the app for phones, the server, bulk scoring."""
