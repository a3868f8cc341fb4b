"""The phantom is laid out like Camelyon17, and is hard in the way it promises to be."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import nn

from core.data import load
from core.data.formats.camelyon17 import COLUMNS
from core.data.phantom import write_phantom
from core.errors import Stopped, UserError
from core.events import Watcher


def hashes(root):
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in root.rglob("*")
        if file.is_file()
    }


def rows(root):
    with (root / "camelyon17_v1.0" / "metadata.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_layout_is_that_of_wilds(tmp_path):
    write_phantom(tmp_path / "p", images=120)
    root = tmp_path / "p" / "camelyon17_v1.0"
    header = (root / "metadata.csv").read_text().splitlines()[0]
    assert header == ",patient,node,x_coord,y_coord,tumor,slide,center,split"
    assert header == "," + ",".join(COLUMNS)
    assert "PHANTOM" in (root / "RELEASE_v1.0.txt").read_text()
    table = rows(tmp_path / "p")
    assert [int(row[""]) for row in table] == list(range(120))
    slides = sorted({(row["patient"], row["node"], int(row["slide"])) for row in table})
    assert [slide for _, _, slide in slides] == list(range(50))
    for row in table:
        assert len(row["patient"]) == 3
        assert int(row["center"]) == int(row["patient"]) // 20
        assert int(row["center"]) == int(row["slide"]) // 10
        name = f"patient_{row['patient']}_node_{row['node']}"
        place = f"x_{row['x_coord']}_y_{row['y_coord']}"
        assert (root / "patches" / name / f"patch_{name}_{place}.png").is_file()


@pytest.mark.parametrize("images", [40, 100, 301])
def test_labels_are_balanced_in_every_hospital(tmp_path, images):
    write_phantom(tmp_path / "p", images=images)
    table = rows(tmp_path / "p")
    assert len({(r["slide"], r["x_coord"], r["y_coord"]) for r in table}) == images
    for center in "01234":
        tumour = [int(row["tumor"]) for row in table if row["center"] == center]
        assert len(tumour) > 0
        assert abs(2 * sum(tumour) - len(tumour)) <= 1 + len(tumour) % 2
    splits = [row["split"] for row in table if row["center"] in "034"]
    assert splits.count("0") > splits.count("1")


def test_the_same_seed_gives_the_same_files(tmp_path):
    write_phantom(tmp_path / "a", images=30, seed=4)
    write_phantom(tmp_path / "b", images=30, seed=4)
    write_phantom(tmp_path / "c", images=30, seed=5)
    one, two, other = (hashes(tmp_path / name) for name in "abc")
    assert one == two
    assert one != other


def test_no_two_patches_are_alike(tmp_path):
    write_phantom(tmp_path / "p", images=200)
    patches = [h for name, h in hashes(tmp_path / "p").items() if name.endswith("png")]
    assert len(set(patches)) == 200


@pytest.mark.parametrize("images", [0, -5])
def test_a_number_that_is_not_positive_is_refused(tmp_path, images):
    with pytest.raises(UserError, match=f"at least 1 image, not {images}"):
        write_phantom(tmp_path / "p", images=images)
    assert not (tmp_path / "p").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="is not empty"):
        write_phantom(tmp_path, images=5)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be created"):
        write_phantom(tmp_path / "file" / "p", images=5)


def test_stopping_leaves_an_empty_folder_to_try_again_in(tmp_path):
    asked = iter([False] * 7 + [True])
    seen = []
    watcher = Watcher(report=seen.append, stop_requested=lambda: next(asked))
    with pytest.raises(Stopped):
        write_phantom(tmp_path / "p", images=20, watcher=watcher)
    assert [p.done for p in seen] == list(range(1, 8))
    assert list((tmp_path / "p").iterdir()) == []
    write_phantom(tmp_path / "p", images=2)


# What follows measures the promise of difficulty, at the working resolution, from the
# three training hospitals to the test one that no classifier has seen.


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """Train and test images, float32 [n, 3, 32, 32] in [-1, 1], and labels."""
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder / "p", images=2000)
    dataset = load(folder / "p", folder / "cache")
    assert not dataset.problems
    parts = []
    for name in ("train", "test"):
        chosen = dataset.official_subset(name)
        pixels = torch.tensor(dataset.images[chosen]).permute(0, 3, 1, 2)
        parts += [pixels.float() / 127.5 - 1, torch.tensor(dataset.labels[chosen])]
    return parts


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def accuracy(scores, labels):
    return ((scores > 0) == labels.bool()).float().mean().item()


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_a_linear_classifier_on_raw_pixels_fails(phantom, penalty):
    train, labels, test, test_labels = phantom
    x, y = train.flatten(1), labels.float()
    weights = torch.zeros(x.shape[1] + 1, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        solver.zero_grad()
        logits = x @ weights[:-1] + weights[-1]
        value = nn.functional.binary_cross_entropy_with_logits(logits, y)
        value = value + penalty * weights[:-1].square().sum()
        value.backward()
        return value

    solver.step(loss)
    with torch.no_grad():
        found = accuracy(test.flatten(1) @ weights[:-1] + weights[-1], test_labels)
        fitted = accuracy(x @ weights[:-1] + weights[-1], labels)
    assert fitted > 0.6  # It did learn what there is to learn.
    assert found < 0.75


def test_mean_colour_does_not_tell_the_label(phantom):
    train, labels, _, _ = phantom
    means = train.mean((2, 3))
    gap = means[labels == 1].mean(0) - means[labels == 0].mean(0)
    assert (gap.abs() / means.std(0)).max() < 0.35


def test_a_small_cnn_reads_the_label(phantom):
    train, labels, test, test_labels = phantom

    def block(before, after):
        layers = nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(8, after)
        return *layers, nn.ReLU(), nn.MaxPool2d(2)

    network = nn.Sequential(
        *(*block(3, 32), *block(32, 64), *block(64, 64)),
        *(nn.Flatten(), nn.Linear(64 * 16, 1)),
    )
    steps, batch = 100, 64
    adam = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(train), (batch,))
        images = train[chosen]
        if torch.rand(()) < 0.5:
            images = images.flip(3)
        # Another hospital has other stains.
        images = images * (1 + 0.2 * torch.randn(batch, 3, 1, 1))
        images = images + 0.2 * torch.randn(batch, 3, 1, 1)
        logits = network(images)[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits, labels[chosen].float()
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        assert accuracy(network(test)[:, 0], test_labels) > 0.93


def test_covariances_of_low_frequencies_tell_the_classes_apart(phantom):
    train, labels, test, test_labels = phantom

    def coefficients(images):
        grey = images.mean(1).numpy()
        grey = grey - grey.mean((1, 2), keepdims=True)
        return dctn(grey, axes=(1, 2), norm="ortho")[:, :14, :14].reshape(len(grey), -1)

    known, unknown = coefficients(train), coefficients(test)
    scores = []
    for label in (0, 1):
        chosen = known[labels.numpy() == label]
        covariance = np.cov(chosen.T) + 0.01 * np.eye(known.shape[1])
        root = np.linalg.cholesky(covariance)
        white = np.linalg.solve(root, (unknown - chosen.mean(0)).T)
        scores.append(-0.5 * (white**2).sum(0) - np.log(np.diag(root)).sum())
    assert accuracy(torch.tensor(scores[1] - scores[0]), test_labels) > 0.75
