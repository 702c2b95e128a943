"""Draw the pictures of the documentation: `python docs/make_images.py` writes docs/images/*.png."""

from pathlib import Path

from erftheory import Activation, Chain, Conv, exact

IMAGES = Path(__file__).resolve().parent / "images"


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    network = Chain(Conv(3), Activation("relu")) * 64
    figure = exact(network).plot()
    # Without the version of matplotlib in the file, a second run writes the same bytes.
    figure.savefig(IMAGES / "erf.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
