"""What a network's description says about its ERF, exactly: one backward pass, many readings.

Rooms, each importing only those before it:

    walk        the walk as probabilities, the algebras that fold it, gains as links, exact numbers
    units       what a layer does to the law of a unit: laws, quadrature, max pools, gates
    lowering    from a graph to its walk: branches, runs and lags of fixed layers, what has no end
    gains       the forward pass: power of every link; `prepare`, the door from a network to a walk
    readings    receptive field, counting, moments, cumulants, lattice, widths of all layers
    image       the ERF on a finite image
    plane       the ERF on the unbounded plane; `exact` decides which method computes what
    limits      Edgeworth, saddlepoint, distances to the Gaussian, which laws apply
    advice      advise, tiling
    fluctuations  how much the ERF of one random net differs from the mean

Begin with `walk/walk.py` (the random walk) and `walk/algebra.py` (how it is folded).
"""
