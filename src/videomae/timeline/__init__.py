"""When what happens in a video: class probabilities over time, and the events in them."""
