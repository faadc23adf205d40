"""A trained detector used elsewhere: exports, the app on a phone, the server."""
