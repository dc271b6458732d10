"""HTTP for the library's edges: dates in headers, and the client's address."""
