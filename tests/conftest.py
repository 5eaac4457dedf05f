"""What holds for all tests."""

import os

from hypothesis import settings

# Machines that run tests are busy: how long an example takes says nothing. What decides whether a change lands has to
# say the same twice; elsewhere every run looks for something new.
settings.register_profile("mesh", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("mesh")
