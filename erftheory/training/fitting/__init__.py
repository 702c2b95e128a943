"""Training a module so that it can be killed at any moment and ends the same.

Step t is a function of the state before it, the data and the key alone: the order of images, the
augmentations and dropout all come from the key and the number of the step. So a checkpoint of the
state is enough to go on from, bit for bit. `step` is one pure update (loss, gradient, optimiser),
`batches` the order of images, `augment` changes to a batch, `score` accuracy and mean IoU,
`checkpoints` what lies on disk, `fit` the loop.

Begin with `fit.fit`.
"""

from erftheory.training.needs import check

check("flax", "optax", "orbax")
