"""Profiles of the property tests: `HYPOTHESIS_PROFILE=slow` runs ten times as many examples."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("normal", max_examples=2_000, deadline=None)
settings.register_profile("slow", max_examples=20_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "normal"))
