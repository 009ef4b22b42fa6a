"""Training loops that read top to bottom: pre-training, fine-tuning, and the demonstration of both."""
