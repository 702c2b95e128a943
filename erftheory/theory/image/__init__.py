"""The exact ERF on a finite image, where what leaves it is lost at every layer.

A layer is a banded matrix an axis (`matrices`), repetitions are written out (`graph`), and maps
are pulled back through them, g_in = Σ_t ⊗_a (A_t)_a g_out (`pull`), only where a unit reads
(`needed`). `rims` has what norms divide by on an image, `lags` second moments there, `arrivals`
the share of every unit at once. Begin with units.py.
"""
