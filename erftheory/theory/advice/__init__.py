"""What to do about it: layers that see more than the image, margins of tiles.

`advise` compares fields and ERFs of all layers with an image (`unproductive`); `tiling` finds
the smallest overlap with which tiles agree, by what units near a rim lose (`influence`), for
sizes that fit (`fitting`). Begin with advise.py and tiling.py.
"""
