"""Settings of all tests: examples that Hypothesis draws are the same in every CI run."""

import os

import matplotlib
from hypothesis import settings
from jaxtyping import install_import_hook

matplotlib.use("agg")

# A first call compiles: no deadline a test could meet on both the first and the later examples.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


# Array shapes and types of the compiled engines are checked at every trace while tests run.
install_import_hook(["erftheory.theory.spectrum", "erftheory.theory.direct"], "beartype.beartype")
