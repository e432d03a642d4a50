"""Hypothesis without deadlines: a test that is slow on a busy machine is not wrong."""

from hypothesis import settings

settings.register_profile("vagus", deadline=None)
settings.load_profile("vagus")
