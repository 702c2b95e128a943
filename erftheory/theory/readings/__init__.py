"""What is read off a walk by folding it with one algebra: no map, so they are exact and instant.

The receptive field (offsets), counts (polynomials), moments and cumulants (rationals, `raw`), the
lattice of pixels that are reached, widths and extents of all layers in one pass, the table of
`summary`. Σ_a a²v_a − (Σ_a a v_a)² of every layer, times its jump squared, adds up to the
variance. Behind up-sampling `phased` carries moments by residue classes, as few as the grids nearer
to the input still tell apart. Begin with receptive_field.py and moments.py.
"""
