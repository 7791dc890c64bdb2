"""What moves the state of a map with a warm start: each way to train, and what is no step."""
