"""Multi-view testing of classifiers: views of a video, merging, metrics."""
