"""Files that were damaged since they were kept: the custodian is told what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import UserError
from core.parallel import choose_hardware
from core.privacy.budget import PrivacyUnit
from core.training.central import load_central, save_central
from core.training.matching import Matching
from core.training.moments import load_moments, save_moments
from core.training.teacher import (
    load_teacher,
    new_teacher,
    save_teacher,
)
from core.training.units import group_units
from tests.core.tiny import make_dataset, make_teacher
from tests.core.training.test_moments import released


def moments():
    gains, offsets = torch.zeros(2, 2, 2, 5)
    way = Matching(gains=gains, offsets=offsets, lengths=torch.zeros(2))
    return replace(gaussians(), matching=way)


def gaussians():
    return released(group_units(make_dataset(20), PrivacyUnit()))


def teacher():
    made = new_teacher(make_teacher(), gaussians(), choose_hardware("cpu"))
    learned = torch.zeros(3, *made.model.shape)
    names = ("model", "velocity", "summed")
    return replace(made, **dict(zip(names, learned, strict=True)))


def central():
    return torch.zeros(1, 2, 3, 4, 4)


KEPT = {
    "moments": (moments, save_moments, load_moments, "means"),
    "moments' way": (moments, save_moments, load_moments, "gains"),
    "teacher": (teacher, save_teacher, load_teacher, "velocity"),
    "central": (central, save_central, load_central, "noisy"),
}


def renamed(path, name: str) -> None:
    """One letter of a name has changed on the disk."""
    tensors = {key: kept.clone() for key, kept in load_file(path).items()}
    tensors["?" + name[1:]] = tensors.pop(name)
    save_file(tensors, path)


@pytest.mark.parametrize("damage", ["gone", "cut", "renamed"])
@pytest.mark.parametrize("kept", KEPT)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, kept, damage):
    make, save, load, name = KEPT[kept]
    path = tmp_path / "kept.safetensors"
    save(make(), path)
    load(path)
    match damage:
        case "gone":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:100])
        case "renamed":
            renamed(path, name)
    with pytest.raises(UserError, match=r"kept\.safetensors is damaged or gone: rest"):
        load(path)
