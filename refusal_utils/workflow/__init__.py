"""The command line: run the notebooks, resume them, and record what was run."""
