"""From a graph to its walk.

`lowering.build` turns links into edges and their gains into probabilities. Layers without
random weights correlate neighbouring gradients, so the walk is over second moments there,
S_AB(t, δ) = E[g_A(t) g_B(t + δ)] (`lags`), by what fixed edges do (`squares`, `runs`);
`branches` says which sums add amplitudes, `unbounded` what has no end. Begin with lowering.py.
"""
