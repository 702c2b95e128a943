"""What the documentation shows is what happens."""

import doctest
import re
from pathlib import Path

import pytest

from erftheory import moments, receptive_field, zoo

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("page", ["README.md", "docs/exact.md"])
def test_examples_print_what_the_page_shows(page):
    failed, tried = doctest.testfile(
        str(ROOT / page), module_relative=False, optionflags=doctest.ELLIPSIS
    )
    assert tried > 5
    assert failed == 0


def test_links_lead_to_files():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).is_file(), f"{page.name}: {link}"


def test_modules_that_the_architecture_names_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = "network|theory|empirical|laws"
    named = set(re.findall(rf"`(?:erftheory/)?((?:{rooms})(?:/\w+)+\.py)`", text))
    assert len(named) > 5
    missing = {n for n in named if not (ROOT / "erftheory" / n).is_file()}
    assert missing == {"laws/TOPIC.py", "theory/readings/NAME.py"}  # the two that are placeholders


def test_published_networks_of_the_page_are_what_is_computed():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^(\w+) +(\d+) +(\d+) +(\d+\.\d{3})  0\.\d+$", text, re.MULTILINE)
    assert len(rows) == 7
    for name, size, stride, std in rows:
        net = zoo.get(name)
        field = receptive_field(net)
        assert (field.size[0], field.stride[0]) == (int(size), int(stride)), name
        assert f"{moments(net).std[0]:.3f}" == std, name
