"""Everything before weights."""
