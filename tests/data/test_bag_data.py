"""Ragged bags: every way of keeping them gives the same instances, and bad files are named."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from anygrain.data.bag_data import BagData
from anygrain.data.error import InputError

SIZES = (3, 1, 40, 7)


@pytest.fixture
def bags():
    random = np.random.default_rng(0)
    return [random.normal(size=(n, 5)).astype(np.float32) for n in SIZES]


@pytest.fixture
def coords():
    random = np.random.default_rng(1)
    return [random.integers(0, 900, size=(n, 2)) for n in SIZES]


def write(folder, ending, bags, coords):
    folder.mkdir()
    for number, (features, places) in enumerate(zip(bags, coords, strict=True)):
        path = folder / f"slide_{number}{ending}"
        if ending == ".npz":
            np.savez(path, features=features, coords=places)
        elif ending == ".h5":
            h5py = pytest.importorskip("h5py")
            with h5py.File(path, "w") as file:
                file["features"], file["coords"] = features, places
        elif ending == ".zarr":
            zarr = pytest.importorskip("zarr")
            group = zarr.open_group(str(path), mode="w")
            for name, array in (("features", features), ("coords", places)):
                group.create_array(name, shape=array.shape, chunks=(2, array.shape[1]), dtype=array.dtype)[...] = array
    return folder


def table(path, bags, coords, **more):
    columns = {
        "slide": [f"s{n}" for n in range(len(bags))],
        "features": [b.tolist() for b in bags],
        "coords": [c.tolist() for c in coords],
    }
    pq.write_table(pa.table({**columns, **more}), path, row_group_size=2)
    return path


def every_way(tmp_path, bags, coords):
    ids = np.repeat(np.arange(len(bags)), SIZES)
    turns = np.lexsort((ids, np.concatenate([np.arange(n) for n in SIZES])))  # bags take turns, each in its order
    yield BagData.from_arrays(bags, coords)
    yield BagData.from_ids(np.concatenate(bags)[turns], ids[turns], np.concatenate(coords)[turns])
    for ending in (".npz", ".h5", ".zarr"):
        yield BagData.from_folder(write(tmp_path / ending[1:], ending, bags, coords))
    yield BagData.from_parquet(table(tmp_path / "bags.parquet", bags, coords), "features", "coords", "slide")


def test_every_way_gives_the_same_instances(tmp_path, bags, coords):
    for data in every_way(tmp_path, bags, coords):
        assert (len(data), data.feature_dim, data.n_instances) == (4, 5, 51)
        assert data.sizes.tolist() == list(SIZES)
        rows = torch.tensor([2, 0])
        found = data.read(rows)
        assert found["sizes"].tolist() == [40, 3]
        assert found["features"].dtype == torch.float32
        np.testing.assert_array_equal(found["features"].numpy(), np.concatenate([bags[2], bags[0]]))
        np.testing.assert_array_equal(found["coords"].numpy(), np.concatenate([coords[2], coords[0]]))
        np.testing.assert_array_equal(data[1], bags[1])
        part = data[np.array([False, True, False, True])]
        np.testing.assert_array_equal(part.features, np.concatenate([bags[1], bags[3]]))
        np.testing.assert_array_equal(part[np.array([1])].coords, coords[3])
        assert part.names == [data.names[1], data.names[3]]


def test_instances_come_in_whole_bags_of_bounded_size(bags):
    data = BagData.from_arrays(bags)
    parts = list(data.instances(at_once=10))
    assert torch.cat([p["sizes"] for p in parts]).tolist() == list(SIZES)
    np.testing.assert_array_equal(torch.cat([p["features"] for p in parts]).numpy(), data.features)
    assert len(parts) > 1


def test_bags_of_instances_are_those_of_the_labels(bags):
    data = BagData.from_arrays(bags)[[3, 0]]
    assert data.bags.members.tolist() == list(range(10))
    assert data.bags.sizes.tolist() == [7, 3]


def test_ids_sort_and_leave_out():
    data = BagData.from_ids(np.arange(5.0)[:, None], [7, -1, 3, 7, 3])
    assert data.names == ["3", "7"]
    assert data.features[:, 0].tolist() == [2, 4, 0, 3]
    data = BagData.from_ids(np.arange(3.0)[:, None], np.array(["b", None, "a"], dtype=object))
    assert (data.names, data.features[:, 0].tolist()) == (["a", "b"], [2, 0])


def test_scikit_learn_splits(bags):
    from sklearn.model_selection import train_test_split

    train, test, _, _ = train_test_split(BagData.from_arrays(bags), np.array([0, 1, 0, 1]), test_size=2, random_state=0)
    assert isinstance(train, BagData)
    assert sorted(train.names + test.names) == ["0", "1", "2", "3"]


def test_files_are_not_read_before_they_are_asked_for(tmp_path, bags, coords):
    data = BagData.from_folder(write(tmp_path / "slides", ".npz", bags, coords))
    features, places = data.source.read(0)
    assert isinstance(features, np.memmap)
    assert isinstance(places, np.memmap)
    np.testing.assert_array_equal(features, bags[0])


def test_compressed_files_and_names(tmp_path, bags):
    for name, features in zip("dbca", bags, strict=True):
        np.savez_compressed(tmp_path / f"{name}.npz", features=features.astype(np.float16))
    data = BagData.from_folder(tmp_path, ["d", "a"])
    assert data.names == ["d", "a"]
    assert not data.has_coords
    np.testing.assert_array_equal(data[1], bags[3].astype(np.float16).astype(np.float32))


def test_a_leading_axis_of_one_is_dropped(tmp_path, bags):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = bags[0][None]
    np.testing.assert_array_equal(BagData.from_folder(tmp_path)[0], bags[0])


def test_columns_of_numbers_in_parquet(tmp_path, bags):
    columns = {f"f{j}": [b[:, j].tolist() for b in bags] for j in range(5)}
    pq.write_table(pa.table(columns), tmp_path / "b.parquet")
    data = BagData.from_parquet(tmp_path / "b.parquet", [f"f{j}" for j in range(5)])
    np.testing.assert_array_equal(data.features, np.concatenate(bags))


def refused(message, make):
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_arrays(bags, coords):
    refused("bag 1 has no instance", lambda: BagData.from_arrays([bags[0], bags[0][:0]]))
    refused("bag 1 has 4 features, bag 0 has 5", lambda: BagData.from_arrays([bags[0], bags[1][:, :4]]))
    refused("Expected (3, 2)", lambda: BagData.from_arrays(bags[:1], coords[1:2]))
    refused("coordinates of 1", lambda: BagData.from_arrays(bags, coords[:1]))
    refused("there are no bags", lambda: BagData.from_arrays([]))
    refused("different names", lambda: BagData.from_arrays(bags, names=["a", "a", "b", "c"]))
    bags[2][4, 1] = np.nan
    refused('bag "2": instance 4 holds NaN', lambda: BagData.from_arrays(bags).features)
    refused("no row lies in a bag", lambda: BagData.from_ids(bags[0], [-1, -1, -1]))


@pytest.mark.parametrize("ending", [".npz", ".h5", ".zarr"])
def test_bad_files_are_named(tmp_path, bags, coords, ending):
    narrow = write(tmp_path / "narrow", ending, [*bags[:3], bags[3][:, :4]], coords)
    refused(f"slide_3{ending} has 4 features", lambda: BagData.from_folder(narrow))
    empty = write(tmp_path / "empty", ending, [*bags[:3], bags[3][:0]], coords)
    refused(f"slide_3{ending} has no instance", lambda: BagData.from_folder(empty))
    moved = write(tmp_path / "moved", ending, bags, [*coords[:3], coords[0]])
    refused(f"slide_3{ending}: coordinates have shape (3, 2). Expected (7, 2)", lambda: BagData.from_folder(moved))
    refused('no file for 1 bag: slide_9. Did you mean "slide_', lambda: BagData.from_folder(moved, ["slide_9"]))


def test_files_of_texts_and_files_that_changed_are_named(tmp_path, bags, coords):
    folder = write(tmp_path / "slides", ".npz", bags, coords)
    data = BagData.from_folder(folder)
    np.savez(folder / "slide_2.npz", features=bags[2][:, :4], coords=coords[2])
    refused("slide_2.npz changed since it was first read: features (40, 4). Expected (40, 5)", lambda: data[2])
    np.savez(folder / "slide_2.npz", features=bags[2].astype(str), coords=coords[2])
    refused('slide_2.npz: "features" holds <U', lambda: BagData.from_folder(folder))
    np.savez_compressed(folder / "slide_2.npz", features=bags[2] * 1j, coords=coords[2])
    refused('slide_2.npz: "features" holds complex', lambda: BagData.from_folder(folder))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4", np.int16])
def test_any_numbers_come_as_float32_and_the_first_that_is_not_finite_is_named(tmp_path, kind):
    given = [np.arange(12).reshape(4, 3).astype(kind), np.arange(6).reshape(2, 3).astype(kind)]
    for m, bag in enumerate(given):
        np.savez(tmp_path / f"{m}.npz", features=bag)
    folder, memory = BagData.from_folder(tmp_path), BagData.from_arrays(given)
    for data in (folder, memory):
        np.testing.assert_array_equal(data.features, np.concatenate(given).astype(np.float32))
    if np.dtype(kind).kind == "f":
        given[1][1, 0] = np.inf
        np.savez(tmp_path / "1.npz", features=given[1])
        for data, name in ((folder, "1"), (BagData.from_arrays(given), "1")):
            refused(f'bag "{name}": instance 1 holds NaN', lambda data=data: data.features)
    large = BagData.from_arrays([np.full((3, 2), 3e38)])
    assert np.isfinite(large.features).all()  # although their sum is not


@pytest.mark.parametrize("ending", [".npz", ".npy", ".h5"])
def test_truncated_files_are_named(tmp_path, bags, coords, ending):
    if ending == ".npy":
        np.save(tmp_path / "slide_2.npy", bags[2])
        folder = tmp_path
    else:
        folder = write(tmp_path / "slides", ending, bags, coords)
    path = folder / f"slide_2{ending}"
    path.write_bytes(path.read_bytes()[:-400])
    refused(f"slide_2{ending}: cannot be read", lambda: BagData.from_folder(folder))


def test_a_zarr_without_all_chunks_is_truncated(tmp_path, bags, coords):
    folder = write(tmp_path / "slides", ".zarr", bags, coords)
    chunk = next(p for p in sorted((folder / "slide_2.zarr" / "features").rglob("*")) if p.name == "0" and p.is_file())
    chunk.unlink()
    refused("slide_2.zarr: truncated: features has 19 of 20 chunks", lambda: BagData.from_folder(folder))


def test_bad_folders(tmp_path):
    refused("no such folder", lambda: BagData.from_folder(tmp_path / "nothing"))
    (tmp_path / "a.pt").write_bytes(b"")
    refused("a.pt may run code when read", lambda: BagData.from_folder(tmp_path))
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 2)))
    refused('holds x. Expected "features"', lambda: BagData.from_folder(tmp_path))
    np.savez(tmp_path / "a.npz", features=np.array([{}, {}], dtype=object))
    refused("Python objects", lambda: BagData.from_folder(tmp_path))


def test_bad_parquet(tmp_path, bags, coords):
    path = table(tmp_path / "b.parquet", bags, coords, y=[1, 2, 3, 4])
    refused('"y" holds int64. Expected lists of lists', lambda: BagData.from_parquet(path, "y"))
    refused('no column "feature". Did you mean "features"', lambda: BagData.from_parquet(path, "feature"))
    swapped = table(tmp_path / "s.parquet", bags, coords[::-1])
    refused(
        'the bag of row 0 has 3 instances in "features" and 7 in "coords"',
        lambda: BagData.from_parquet(swapped, "features", "coords"),
    )
    empty = table(tmp_path / "e.parquet", [*bags[:3], bags[3][:0]], coords)
    refused("the bag of row 3 has no instance", lambda: BagData.from_parquet(empty, "features"))
    path.write_bytes(path.read_bytes()[:-50])
    refused("not a Parquet file, or truncated", lambda: BagData.from_parquet(path, "features"))
