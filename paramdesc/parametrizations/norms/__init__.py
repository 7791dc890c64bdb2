"""Maps to weights with a given norm, mean or variance."""
