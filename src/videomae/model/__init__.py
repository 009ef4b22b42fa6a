"""The models: configuration, layers, encoder, decoder, classifier. No file of this package opens a file."""
