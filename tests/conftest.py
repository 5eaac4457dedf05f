"""What holds for all tests."""

from hypothesis import settings

# Machines that run tests are busy: how long an example takes says nothing.
settings.register_profile("mesh", deadline=None)
settings.load_profile("mesh")
