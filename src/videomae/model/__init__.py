"""The network: configuration, layers, encoder, decoder, classifier, processor and their files on disk."""
