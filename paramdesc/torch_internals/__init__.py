"""What this library knows of the private parts of torch: one file per part."""
