"""Whether pre-training learns: held-out loss beside baselines, features, gradients, and alarms with a cause."""
