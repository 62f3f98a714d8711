"""The pipeline as data, and its translation to one operator."""
