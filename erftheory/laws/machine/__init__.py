"""What a law is, and how laws are run.

`base` has the objects: a `Law` (claim and source) is a function from a `Context` (depth, seed,
engines) to a list of `Evidence`, each a number beside what is allowed; `law` registers it. `trials`
are the sampled claims: tests with a stated statistic, null law, level and power, p = P(T ≥ t). The
levels of a whole run add up to less than 1e-4. `running` runs laws two at a time, `compiling`
counts XLA's programs. Begin with base.py.
"""
