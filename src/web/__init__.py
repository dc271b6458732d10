"""What the HTTP apps of this repository, the API and the provider, have in common."""
