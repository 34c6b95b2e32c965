"""Rooms import their names when they are first used, and list all of them."""

import importlib
import subprocess
import sys

import pytest

ROOMS = ("learn", "audit", "robust", "bags")


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_a_room_is_there(room):
    package = importlib.import_module(f"anygrain.{room}")
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package._FILES) == set(package.__all__)
    with pytest.raises(AttributeError, match=rf"module 'anygrain.{room}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_a_room_does_not_import_scikit_learn_before_a_name_is_used():
    rooms = ", ".join(f"anygrain.{room}" for room in ROOMS)
    code = f"import sys, {rooms}; assert 'sklearn' not in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
