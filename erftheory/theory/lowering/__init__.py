"""From a graph to its walk.

`lowering.build` turns links into edges and their gains into probabilities. Powers alone close under
random layers, not under fixed ones, nor where identities meet: there the walk is over second
moments between ports A and B (node, channel group), S_AB(t, δ) = E[g_A(t) g_B(t + δ)], asked for
from the input (`lags`): the power at the input needs the states of its readers, a product of two
ports opens the one nearer to the input, a random layer keeps a lag and ends a product. What is
asked for and reached is a longer walk; readings need not know. `runs` contracts fixed edges in a
row, and fixed paths of the same two ends, into one edge of summed amplitudes; `squares` has what an
edge does to lags; `branches` says which sums add amplitudes, `unbounded` what has no end,
`vertices` scales to mass 1. Repetitions with fixed taps are written out, because lags cross
iterations. Layers in a row, whose gains cancel, are lowered at once; where nothing meets the edges
of powers are those of gradients, and what activations do on average is found only when a product
asks.

Left: gates of neighbours count as correlated like those of any two pixels of a channel, since the
forward pass knows no distances; max pools end products of two pixels; more than `MOST` products are
limited to the lags that one layer makes. Each makes the error an "approximation". The referee is
tests/covariance*.py, the whole covariance by a program of its own. Begin with lowering.py.
"""
