"""What finished recipes leave in their folders."""

import json

import h5py

KEPT = ("results.json", "table.md", "*.weights.h5")


def differences(one, other):
    """The files of two recipes' folders that differ in more than times, to the last bit."""
    folders = (one, other)
    names = {p.relative_to(f) for f in folders for kind in KEPT for p in f.rglob(kind)}
    return [str(n) for n in sorted(names) if contents(one / n) != contents(other / n)]


def contents(path):
    """What a file holds but for times, or `None` if it is missing."""
    if not path.exists():
        return None
    if path.suffix == ".h5":
        return arrays(path)
    if path.suffix == ".json":
        return repr(timeless(json.loads(path.read_text())))  # NaN equals itself there
    return [line for line in path.read_text().splitlines() if "| seconds " not in line]


def arrays(path):
    """The bytes of each array in a file of weights."""
    found = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = (str(item.dtype), item.shape, item[()].tobytes())

    with h5py.File(path) as file:
        file.visititems(add)
    return found


def timeless(content):
    """JSON without the times in it."""
    if isinstance(content, dict):
        return {key: timeless(value) for key, value in content.items() if key != "seconds"}
    return [timeless(item) for item in content] if isinstance(content, list) else content
