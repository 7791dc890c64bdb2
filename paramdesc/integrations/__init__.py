"""Code for other libraries, a file each. Nothing else in the package imports it."""
