"""The graph of a model, built from values, whatever framework they come from.

A `Draft` has the nodes so far. On top of it `Pointwise` keeps functions of each entry and factors
in the value until something that is not pointwise reads it, `WholeAxes` reads axes whole, and
`Assembler` mixes channels or pixels: whatever a reshape made of them, a window slides over axes in
plain dimensions (`settle`). With it work the operations that frameworks share: `elementwise`,
`joining`, `products`, `layers` on `windows`, `norms`, `movement` with `patches`, and `resizing` by
the rule y_o = Σ_i w(d·o − u·i) x_i that `resample` finds in a matrix.

A `Reader` has what all readers have; `image` finds its pixels, `ends` its endpoints, `rules` are
the user's, and `operation` opens what is no plain map. Begin with assemble.py, which `draft`,
`pointwise` and `whole` lead up to, and reader.py.
"""
