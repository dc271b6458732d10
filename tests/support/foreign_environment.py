"""The environment of a machine in a company network, with proxies and certificates that do not work."""

NOWHERE = "http://127.0.0.1:9"
FOREIGN = {
    "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "http_proxy": NOWHERE, "https_proxy": NOWHERE,
    "ALL_PROXY": "socks5://127.0.0.1:9", "all_proxy": "socks5://127.0.0.1:9",
    "NO_PROXY": "::1", "no_proxy": "::1",
    "SSL_CERT_FILE": "/nonexistent", "SSL_CERT_DIR": "/nonexistent",
    "REQUESTS_CA_BUNDLE": "/nonexistent", "CURL_CA_BUNDLE": "/nonexistent",
}  # fmt: skip
