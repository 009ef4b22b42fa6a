"""Trained models applied to video files: predictions, features, reconstructions."""
