"""Multi-view evaluation of classifiers: views of a video, averaging, metrics."""
