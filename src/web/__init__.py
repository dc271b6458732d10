"""The parts that both HTTP apps use, the API and the provider."""
