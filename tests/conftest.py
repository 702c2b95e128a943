"""Settings of all tests: examples that Hypothesis draws are the same in every CI run."""

import os

import matplotlib
from hypothesis import settings
from jaxtyping import install_import_hook
from threadpoolctl import threadpool_limits

# Arrays are small and every core has a worker of its own: a second thread of BLAS or OpenMP would
# mostly wait, and wait busily. NumPy has begun by now; SciPy and PyTorch read it when they begin.
threadpool_limits(1)
for library in ("OPENBLAS", "MKL", "OMP"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

matplotlib.use("agg")

# Both are read when JAX and SymPy start, here and in the commands that tests run. Most programs run
# once, so that compiling without LLVM's optimisations, and fused loops by the older emitters, saves
# more than it costs; XLA's own passes stay. SymPy forgets after 1000 results what the checks of
# derivations ask for again.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}".strip()
os.environ.setdefault("SYMPY_CACHE_SIZE", "50000")



def pytest_addoption(parser):
    parser.addoption(
        "--all-neighbours", action="store_true", help="all wrong neighbours of a derivation's steps"
    )


# A first call compiles: no deadline a test could meet on both the first and the later examples.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


# Array shapes and types of the compiled engines are checked at every trace while tests run.
ENGINES = ["erftheory.theory.plane.spectrum", "erftheory.theory.plane.direct"]
install_import_hook(ENGINES, "beartype.beartype")
