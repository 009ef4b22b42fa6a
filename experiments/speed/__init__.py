"""What fewer tokens of a clip cost in decisions, and what they gain in time."""
