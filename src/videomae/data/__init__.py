"""Data sets: which videos there are, which part of each a step uses, and deterministic batches.

Every random draw - order, clip position, crop, flip, mask - is a function of (seed, epoch, sample) alone.
"""
