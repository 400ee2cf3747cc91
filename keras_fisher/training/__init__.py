"""One penalised optimisation step; `step.py` tells it from top to bottom."""
