"""Whether pre-training helps: pre-training on procedural clips, and what the encoder is then worth."""
