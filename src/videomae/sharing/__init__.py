"""What a model folder says about itself, and its upload to the Hub."""
