"""A description made trainable: the Flax NNX module of a network.

`trainable` walks the graph once and makes one module a node: Flax's own where Flax has the layer
(`build.rows` has one row a layer and no default), a few by hand (`layers`) where it has not:
transposed convolutions with groups and output padding, windows with dilation, fixed taps. Arrays
are (batch, *spatial, channels), Flax's order. `heads` turn the last map into classes.

Begin with `module.trainable`; `module.NetworkModule` is what it returns.
"""

from erftheory.training.needs import check

check("flax")
