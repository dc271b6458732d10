"""Everything that speaks Redis; nothing else does."""
