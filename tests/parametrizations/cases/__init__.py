"""The maps of the library, as named cases of `paramdesc.testing.check_parametrization`."""
