"""Operations on all parametrizations of a model at once."""
