"""The models of HTTP bodies: request models validate bodies, answer models document them."""
