"""Speed comparisons with transformers' VideoMAE and with video readers, and a proof by killing runs.

Each module says how to run it.
"""
