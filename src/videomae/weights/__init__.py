"""Checkpoints on disk and on the Hub: files, names, shapes and configurations."""
