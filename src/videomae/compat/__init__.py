"""transformers' callables as thin adapters over `videomae.inference`."""
