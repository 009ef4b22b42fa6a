"""What search, copies, anomalies and overlays are worth, measured on generated and on real footage."""
