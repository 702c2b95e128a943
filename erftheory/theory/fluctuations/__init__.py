"""How much the ERF of one random net differs from the mean over nets, at finite width.

`power` gives Var m₀ / E[m₀]² of the total power by chains of correlated paths (`chains`), for
activations by a mean field (`mean_field`). Begin with power.py.
"""
