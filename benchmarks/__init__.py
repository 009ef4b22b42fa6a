"""Speed comparisons with transformers' VideoMAE, and a proof by killing runs; each module says how to run it."""
