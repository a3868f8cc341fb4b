"""Reading private folders: how fast, beside torchvision, and how much memory.

Ratios only, both sides measured in turns on the same machine with the same files, read
once before so that the disk plays no part. SFUMATO_BENCH_IMAGES sets the number of
images (10,000), SFUMATO_BENCH_TURNS how often each side is measured (2), and
SFUMATO_BENCH_FOLDER where the images are drawn, to be found there next time.

The other side is measured with as many workers as we have decoders, and with one for
each processor; the better counts. Of our time half is kornia-rs' decoding of PNG.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.data import load
from core.data.phantom import _HOSPITALS
from core.data.sandbox import decoder_count
from core.data.tissue import TissueArtist

IMAGES = int(os.environ.get("SFUMATO_BENCH_IMAGES", "10000"))
TURNS = int(os.environ.get("SFUMATO_BENCH_TURNS", "2"))
WORKERS = decoder_count()
ROOT = Path(__file__).parents[2]

BASELINE = """
import sys
import numpy, torch, torchvision
from torchvision import transforms
root, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
steps = [
    transforms.Resize(32, interpolation=transforms.InterpolationMode.BOX),
    transforms.CenterCrop(32),
    transforms.PILToTensor(),
]
dataset = torchvision.datasets.ImageFolder(root, transforms.Compose(steps))
loader = torch.utils.data.DataLoader(dataset, batch_size=128, num_workers=workers)
shape = (len(dataset), 32, 32, 3)
array = numpy.lib.format.open_memmap(out, "w+", numpy.uint8, shape)
done = 0
for images, _ in loader:
    array[done : done + len(images)] = images.permute(0, 2, 3, 1).numpy()
    done += len(images)
array.flush()
"""

OURS = """
import sys
from core.data import load
print(load(sys.argv[1], sys.argv[2]).fingerprint)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Patches of 96×96 as PNG: drawn tissue, each file of other bytes."""
    kept = os.environ.get("SFUMATO_BENCH_FOLDER")
    root = Path(kept) if kept else tmp_path_factory.mktemp("bench") / "d"
    if len(list(root.glob("[01]/*.png"))) == IMAGES:
        return root
    artist, rng = TissueArtist(0), np.random.default_rng(0)
    patches = [
        artist.paint(tumour=bool(n % 2), staining=_HOSPITALS[n % 5], rng=rng)
        for n in range(200)
    ]
    for number in range(IMAGES):
        turned = np.rot90(patches[number % 200], number // 200 % 4).copy()
        turned[0, 0] = number % 256, number // 256 % 256, number // 65536
        path = root / str(number % 2) / f"{number // 2:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(turned).save(path, compress_level=1)
    return root


def seconds(code: str, *arguments: object) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], check=True, cwd=ROOT
    )
    return time.perf_counter() - began


def test_preparing_beside_torchvision(folder, tmp_path, capsys):
    for file in folder.rglob("*.png"):
        file.read_bytes()
    ours, theirs = [], []
    for _ in range(TURNS):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        ours.append(seconds(OURS, folder, tmp_path / "cache"))
        for workers in (WORKERS, os.cpu_count() or 1):
            theirs.append(seconds(BASELINE, folder, tmp_path / "a.npy", workers))
    reopened = seconds(OURS, folder, tmp_path / "cache")
    mine = load(folder, tmp_path / "cache").images
    assert np.array_equal(np.load(tmp_path / "a.npy"), mine)
    ratio = min(theirs) / min(ours)
    with capsys.disabled():
        print(
            f"\n{IMAGES:,} PNG of 96×96 to 32×32, {WORKERS} workers: "
            f"{min(ours):.1f} s, ImageFolder + DataLoader {min(theirs):.1f} s, "
            f"{ratio:.2f} times as fast; opened again in {reopened:.2f} s with the "
            "interpreter's start"
        )
    assert ratio > 1.2
    assert reopened < max(2.0, 0.3 * min(ours))


PLAN = """
import resource, sys
import numpy as np
from pathlib import Path
from core.data import options
from core.data.formats import ClassFolders, Camelyon17
from core.data.formats.camelyon17 import Camelyon17
from core.data.records import Intake, read_records
from core.data.reading import Picture
from core.events import Watcher
from dataclasses import replace

class Made:
    '''Images that cost nothing to read.'''
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def read(self, resolution, channels, first=0):
        blank = np.zeros((resolution, resolution, channels), np.uint8)
        for start in range(first, self.count, 64):
            yield [
                Picture(pixels=blank, digest=n.to_bytes(32, 'big'), width=96,
                        height=96, mode='RGB')
                for n in range(start, min(start + 64, self.count))
            ]

class Forgetful(Intake):
    def keep(self, pictures): pass

root = Path(sys.argv[1])
index = Camelyon17().index(root, options.ReadOptions())
count = len(index)
records = read_records(
    replace(index, images=Made(count)), 32, 3, Forgetful(), Watcher()
)
assert len(records.labels) == count == int(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_million_images_plan_in_two_gigabytes(tmp_path, capsys):
    """The table of a Camelyon17 of a million patches, and all columns made of it."""
    root = tmp_path / "camelyon17_v1.0"
    (root / "patches").mkdir(parents=True)
    rows = 1_000_000
    with (root / "metadata.csv").open("w") as file:
        file.write(",patient,node,x_coord,y_coord,tumor,slide,center,split\n")
        for n in range(rows):
            file.write(f"{n},{n % 100:03d},1,{n},{n},{n % 2},{n % 50},{n % 5},0\n")
    done = subprocess.run(
        [sys.executable, "-c", PLAN, str(root), str(rows)],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    peak = int(done.stdout) * (1 if sys.platform == "darwin" else 1024)
    with capsys.disabled():
        print(f"\n{rows:,} images planned within {peak / 1e9:.2f} GB")
    assert peak < 2e9


def test_memory_does_not_grow_with_the_number_of_images(folder, tmp_path, capsys):
    """Twice the images cost their names and columns, and no pixel more."""
    peaks = []
    code = OURS + (
        "import resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    for share in (4, 1):
        part = tmp_path / f"part{share}"
        for name in ("0", "1"):
            (part / name).mkdir(parents=True)
            files = sorted((folder / name).iterdir())
            for file in files[: len(files) // share]:
                os.link(file, part / name / file.name)
        done = subprocess.run(
            [sys.executable, "-c", code, str(part), str(tmp_path / f"cache{share}")],
            check=True,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    more = IMAGES * 3 / 4
    with capsys.disabled():
        print(
            f"\npeak {peaks[0]:.0f} MB for a quarter and {peaks[1]:.0f} MB for all of "
            f"{IMAGES:,} images: {(peaks[1] - peaks[0]) * 1e6 / more:.0f} bytes each"
        )
    # A working image alone has 3,072 bytes.
    assert (peaks[1] - peaks[0]) * 1e6 / more < 2000 + 40e6 / more
