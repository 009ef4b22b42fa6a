"""Speed comparisons with transformers' VideoMAE; each module says how to run it."""
