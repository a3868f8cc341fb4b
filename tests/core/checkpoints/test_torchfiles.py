"""Weight files are read without being run; whatever would run is refused."""

from __future__ import annotations

import builtins
import importlib
import io
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from core.checkpoints.torchfiles import StoredTensor, open_torch_file
from core.errors import UserError

KINDS = ("float32", "float16", "bfloat16", "float64", "int64", "uint8")


def state() -> OrderedDict:
    numbers = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 9
    return OrderedDict((kind, numbers.to(getattr(torch, kind))) for kind in KINDS)


def loaded(path: Path) -> dict:
    file = open_torch_file(path)
    return {name: file.tensor(stored) for name, stored in file.content.items()}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_reads_what_torch_wrote(tmp_path, zipped, protocol):
    saved = state()
    saved["transposed"] = saved["float32"].T
    saved["part"] = saved["float32"][1:, 2]
    saved["parameter"] = nn.Parameter(torch.ones(2))
    torch.save(
        saved, tmp_path / "a.pt", pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )  # fmt: skip
    found = loaded(tmp_path / "a.pt")
    assert list(found) == list(saved)
    for name, tensor in saved.items():
        assert found[name].dtype is tensor.dtype
        assert torch.equal(found[name], tensor.detach()), name


def test_reads_the_state_of_a_module(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
    torch.save(module.state_dict(), tmp_path / "a.pt")
    found = loaded(tmp_path / "a.pt")
    for name, tensor in module.state_dict().items():
        assert torch.equal(found[name], tensor)


def test_training_states_are_read_as_what_they_are(tmp_path):
    torch.save(
        {"model": state(), "step": 7, "rate": 0.5, "names": ["a"]}, tmp_path / "a"
    )
    content = open_torch_file(tmp_path / "a").content
    assert isinstance(content["model"]["float32"], StoredTensor)
    assert (content["step"], content["rate"], content["names"]) == (7, 0.5, ["a"])


class Calls:
    """Pickles to a call of `function`, as every exploit does in the end."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def written(tmp_path: Path, program: bytes, zipped: bool) -> Path:
    """A weight file with this program in it."""
    path = tmp_path / "evil.pt"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evil/data.pkl", program)
            archive.writestr("evil/version", "3\n")
    else:
        magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
        path.write_bytes(magic + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + program)
    return path


TRAPS = [
    (builtins.open, lambda trace: (trace, "w")),
    (builtins.eval, lambda trace: (f"open({trace!r}, 'w')",)),
    (builtins.exec, lambda trace: (f"open({trace!r}, 'w')",)),
    (builtins.__import__, lambda trace: ("os",)),
    (builtins.getattr, lambda trace: ("text", "upper")),
    (importlib.import_module, lambda trace: ("os",)),
    (__import__("os").system, lambda trace: (f"touch {trace}",)),
    (subprocess.Popen, lambda trace: (["touch", trace],)),
    (subprocess.run, lambda trace: (["touch", trace],)),
    (torch.load, lambda trace: (trace,)),
    (torch.hub.load, lambda trace: ("a/b", "c")),
    (np.load, lambda trace: (trace, None, True)),
    (pickle.loads, lambda trace: (b"cos\nsystem\n.",)),
    (io.FileIO, lambda trace: (trace, "w")),
    (Path.touch, lambda trace: (Path(trace),)),
    (torch.save, lambda trace: ([], trace)),
    (torch.nn.Linear, lambda trace: (2, 2)),
    (sys.exit, lambda trace: (3,)),
]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap[0].__qualname__)
def test_a_file_that_wants_to_run_code_is_refused_and_not_run(
    tmp_path, trap, protocol, zipped
):
    trace = tmp_path / "it ran"
    function, arguments = trap
    evil = {"weight": Calls(function, *arguments(str(trace)))}
    path = written(tmp_path, pickle.dumps(evil, protocol), zipped)
    with pytest.raises(UserError, match="not run"):
        open_torch_file(path)
    assert not trace.exists()


OPCODES = {
    # The old ways to name and to call, extension codes, and building by a class.
    "INST": b"(S'touch x'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch x'\no.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "NEWOBJ": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04ccollections\nOrderedDict\n)}\x92.",
    "PERSID": b"Pstorage\n.",
    "GLOBAL": b"\x80\x02cos\nsystem\n.",
    "a name with more in it": b"\x80\x02ctorch\nFloatStorage.__class__\n.",
    "a module within an allowed one": b"\x80\x02ccollections.abc\nOrderedDict\n.",
    "a private part of torch": b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n.",
    "storage from bytes": b"\x80\x02ctorch.storage\n_load_from_bytes\n.",
    "READONLY_BUFFER": b"\x80\x05\x98.",
    "BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 1) + b"x.",
    "calling a number type": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "calling a text": b"\x80\x02X\x02\x00\x00\x00os)R.",
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("program", OPCODES.values(), ids=OPCODES)
def test_instructions_that_no_weight_file_needs_are_refused(tmp_path, program, zipped):
    with pytest.raises(UserError, match="refused"):
        open_torch_file(written(tmp_path, program, zipped))


BROKEN = {
    "empty": b"",
    "no end": b"\x80\x02}",
    "text for a dictionary": b"\x80\x02X\x01\x00\x00\x00aK\x01K\x02s.",
    "nothing on the stack": b"\x80\x02R.",
    "unknown memo": b"\x80\x02h\x05.",
    "an odd number of items": b"\x80\x02}(K\x01u.",
    "no mark": b"\x80\x02}u.",
    "a list as key": b"\x80\x02}]K\x01s.",
    "an unknown storage": b"\x80\x02K\x05Q.",
    "not an opcode": b"\x80\x02\xff.",
    "unending": b"\x80\x02" + b"N" * 1000,
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("program", BROKEN.values(), ids=BROKEN)
def test_damaged_programs_are_the_users_to_replace(tmp_path, program, zipped):
    with pytest.raises(UserError, match=r"evil\.pt"):
        open_torch_file(written(tmp_path, program, zipped))


def rewritten(path: Path, **changes):
    """The archive with entries replaced; None takes one out."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(entries)).partition("/")[0]
    entries |= {f"{root}/{name.replace('__', '/')}": c for name, c in changes.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            if content is not None:
                archive.writestr(name, content)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 4096, None])
def test_numbers_that_are_missing_or_too_many_are_noticed(tmp_path, content):
    torch.save(state(), tmp_path / "a.pt")
    rewritten(tmp_path / "a.pt", data__0=content)
    with pytest.raises(UserError, match="damaged"):
        loaded(tmp_path / "a.pt")


def test_an_old_file_whose_lengths_differ_is_noticed(tmp_path):
    torch.save(
        {"a": torch.arange(5.0)},
        tmp_path / "a.pt",
        _use_new_zipfile_serialization=False,
    )
    content = (tmp_path / "a.pt").read_bytes()
    length = struct.pack("<Q", 5)
    assert content.count(length) == 1
    for other in (content.replace(length, struct.pack("<Q", 4)), content[:-2]):
        (tmp_path / "a.pt").write_bytes(other)
        with pytest.raises(UserError, match="damaged"):
            loaded(tmp_path / "a.pt")


def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(tmp_path):
    torch.save({"a": torch.zeros(4)}, tmp_path / "a.pt")
    file = open_torch_file(tmp_path / "a.pt")
    stored = file.content["a"]
    for offset, shape, stride in ((1, (4,), (1,)), (0, (2,), (9,)), (0, (4,), (-1,)),
                                  (0, (2**40, 2**40), (1, 1)), (-1, (1,), (1,)),
                                  (0, "abc", (1,))):  # fmt: skip
        with pytest.raises(UserError, match="damaged"):
            file.tensor(StoredTensor(stored.storage, offset, shape, stride))


def test_one_changed_byte_is_found_by_the_archive(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.full((64,), 7.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((64,), 7.0).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        loaded(path)


def test_archives_that_torch_did_not_write_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
    with pytest.raises(UserError, match="compressed"):
        open_torch_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match="not one that PyTorch wrote"):
        open_torch_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", pickle.dumps({}, 2))
    with pytest.raises(UserError, match="two entries"):
        open_torch_file(path)
    torch.save(state(), path)
    rewritten(path, byteorder=b"big")
    with pytest.raises(UserError, match="byte order"):
        open_torch_file(path)


@pytest.mark.parametrize(
    "content", [b"GIF89a", b"\x80\x02K\x05.", b"{}", b"PK\x03\x04"]
)
def test_other_files_are_named(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pt"):
        open_torch_file(tmp_path / "a.pt")
    with pytest.raises(UserError, match="nothing"):
        open_torch_file(tmp_path / "nothing.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_with_changed_bytes_are_read_or_refused_and_nothing_else(
    tmp_path, zipped
):
    """Anything but a `UserError` would reach the user as a bug."""
    path, rng = tmp_path / "a.pt", np.random.default_rng(0)
    torch.save(state(), path, _use_new_zipfile_serialization=zipped)
    whole, refused = path.read_bytes(), 0
    for _ in range(400):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content[: rng.integers(1, len(whole) * 4)])
        try:
            loaded(path)
        except UserError:
            refused += 1
    assert refused > 50


def test_the_reader_knows_no_way_to_run_anything():
    """It imports neither pickle nor a loader, and looks no name up."""
    import core.checkpoints.torchfiles as module

    source = Path(module.__file__).read_text(encoding="utf-8")
    for word in ("import pickle\n", "torch.load(", "getattr(", "import_module",
                 "__import__", "globals(", "find_class"):  # fmt: skip
        assert word not in source.replace("`torch.load`", "")
