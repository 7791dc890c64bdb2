"""What is done to all parametrizations of a model at once."""
