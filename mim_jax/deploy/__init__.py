"""A trained detector taken elsewhere: exports, the app on a phone, the server."""
