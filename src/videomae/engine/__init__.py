"""The training machinery: randomness, optimiser, schedule, precision, checkpoints, run folder, progress.

Knows nothing of video or models: what it needs of them (parameter names, layer numbers, states) comes as
arguments.
"""
