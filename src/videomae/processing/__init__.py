"""Frames in, pixel values out, and back."""
