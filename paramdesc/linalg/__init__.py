"""The functions of matrices that the maps are made of."""
