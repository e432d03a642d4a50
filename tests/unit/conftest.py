"""Hypothesis without deadlines (slow on a busy machine is not wrong) and without files in the repository."""

from hypothesis import settings

settings.register_profile("vagus", deadline=None, database=None)
settings.load_profile("vagus")
