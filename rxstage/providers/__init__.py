"""What stands between a stage and a model."""
