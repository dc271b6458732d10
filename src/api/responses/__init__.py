"""The parts of a response: bytes that are ready to send, entity tags, and the forms that a client accepts."""
