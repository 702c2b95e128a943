"""Real models on real images: the mean of g² over images, g = ∂(a unit of the model)/∂(the image).

`gradients` is the front (`gradient_erf`): images stream through in batches, and sums and their
standard errors come back. `model` reads any JAX function at its units, `torch_model` a PyTorch
module, `choose` takes one for the other; `replknet` repeats the contribution scores of Ding et al.
(CVPR 2022). Nothing here knows the theory. Begin with gradients.py.
"""
