"""Many random nets, fast: Monte Carlo of E g², g = ∂(output unit)/∂(input pixels).

`sampling` is the front (`sample`, `batches`): it asks for blocks of nets, keeps devices busy and
adds up sums. `program` is the one compiled function of a block, `engine` runs the plan of its nets
over the `cone` of one unit and no further, `routes` are the ways in which many nets with weights of
their own are convolved. `symmetry` averages over mirror images that leave the law alone, `tally`
adds in float64. Begin with sampling.py, then engine.py.
"""
