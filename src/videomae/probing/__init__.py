"""Probes on frozen features: how far an encoder gets on labelled videos without any training of it."""
