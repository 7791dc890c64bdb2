"""Maps onto weights of given norm, mean or variance."""
