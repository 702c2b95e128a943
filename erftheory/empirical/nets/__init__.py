"""A description made executable: y = f(x; w) with random w, which JAX differentiates.

`plan` gives every node its channels, `draw` its weights (`initialise` for users), `execute` runs
one net, channels first. What a layer without weights computes stands in `rules`, one row a layer
and no default; the fast sampler reads the same rows. `canvas` is the smallest image on which a unit
feels no padding, `balance` scales branches to explicit gains, `keys` takes what users call a random
key. Begin with execute.py.
"""
