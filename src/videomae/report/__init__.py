"""Figures of results, and self-contained HTML pages that show them."""
