"""Training of anything: seeds, optimizer, schedule, precision, checkpoints, run folder, workers, signals, progress.

Independent of videos and models: what it needs of them (parameter names, layer ids, states) comes as arguments.
"""
