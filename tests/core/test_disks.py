"""Which disk a folder lies on, and what must not lie on a shared one."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from core import disks
from core.errors import UserError
from core.spending import open_ledger

MOUNTS = """\
rootfs / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/anna/local xfs rw 0 0
//files/share /mnt/the\\040share cifs rw 0 0
tmpfs /tmp tmpfs rw 0 0
server:/tmp /tmp nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/anna", "nfs4"), ("/home", "nfs4"), ("/homes", "ext4"),
     ("/home/anna/local/ledger", "xfs"), ("/mnt/the share/x", "cifs"),
     ("/mnt/the", "ext4"), ("/tmp/x", "nfs")],
)  # fmt: skip
def test_the_nearest_mount_counts(path, kind):
    assert disks.kind_of_mount(PurePosixPath(path), MOUNTS) == kind


def test_no_ledger_is_opened_on_a_shared_disk(tmp_path, monkeypatch):
    """Two computers would each overwrite what the other has charged."""
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(disks, "_MOUNTS", mounts)
    home = tmp_path / "home"
    monkeypatch.setenv("SFUMATO_HOME", str(home))
    mounts.write_text(f"server:/x {tmp_path} nfs4 rw 0 0\n")
    with pytest.raises(UserError, match="SFUMATO_HOME"), open_ledger():
        pass
    assert not home.exists()
    mounts.write_text(f"/dev/sda1 {tmp_path} ext4 rw 0 0\n")
    with open_ledger() as ledger:
        assert not ledger.entries()
    mounts.unlink()
    with open_ledger() as ledger:
        assert not ledger.entries()
