"""Training: does it enlarge what a unit sees? The second half of Luo et al. (NIPS 2016).

`data` reads or generates images with labels, `modules` makes a network of the package a Flax NNX
module, `fitting` trains it so that it can be killed at any moment, `watching` reads the ERF in any
training loop, one's own included, `studies` says whether it grew, over seeds, and why. Needs
`pip install "erftheory[train]"`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "data": [
            "Dataset", "cifar10", "cifar100", "class_folders", "colour_table", "digits",
            "displaced", "idx", "label_maps", "mnist", "mnist5000", "relation",
        ],
        "fitting.augment": ["flipped", "noisy", "shifted"],
        "fitting.fit": ["Fit", "fit"],
        "modules.heads": ["Classifier", "Dense"],
        "modules.module": ["NetworkModule", "trainable"],
        "studies.explained": ["Explained", "explained"],
        "studies.study": ["Pair", "Study", "study"],
        "watching.tracker": ["ErfTracker"],
    },
)  # fmt: skip
