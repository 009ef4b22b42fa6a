"""Experiments whose results are in docs/learning.md; not part of the package."""
