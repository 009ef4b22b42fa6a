"""Using saved networks on videos: predictions, features, reconstructions."""
