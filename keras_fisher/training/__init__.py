"""One penalised optimisation step; begin reading in `step.py`."""
