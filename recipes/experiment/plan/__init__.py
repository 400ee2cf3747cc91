"""The plan of an experiment as plain data: its settings, its runs and their cost."""
