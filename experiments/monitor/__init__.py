"""Planted failures and healthy runs, to measure what the learning monitor finds."""
