"""The ways to run and ship a model, each tried with both engines."""
