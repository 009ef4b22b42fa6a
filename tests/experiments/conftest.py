import sys
from pathlib import Path

# The experiments are no part of the installed package: they are found from the root of the checkout.
sys.path.insert(0, str(Path(__file__).parents[2]))
