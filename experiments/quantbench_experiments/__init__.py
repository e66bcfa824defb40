"""What is compared: models, tasks and experiment files."""
