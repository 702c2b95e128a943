"""What a layer does to the law of one unit in the limit of many channels.

`law.Law` is the distribution of a unit's value (an atom at zero, parts of Gaussians, moments);
`unit_laws.UNIT_LAWS` has a row for every layer: the law behind it, and what a gradient is
multiplied by, E[φ′²]. Smooth activations are integrated by `quadrature`, a max pool's winner by
`max_pool`, gates that meet again by `conditioned` and `slopes`. Begin with unit_laws.py.
"""
