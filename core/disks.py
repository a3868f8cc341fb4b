"""Whether a folder lies on a disk of this computer, or on one that others share."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

SHARED = frozenset(
    "nfs nfs4 cifs smb3 smbfs afs ceph lustre gpfs beegfs glusterfs ocfs2 gfs2 "
    "fuse.sshfs fuse.glusterfs fuse.ceph-fuse fuse.rclone fuse.s3fs".split()
)
"""File systems, as Linux names them, that several computers write to."""

_MOUNTS = Path("/proc/self/mounts")
_REMOTE = 4
"""What Windows answers for a network drive."""


def shared_disk(folder: Path) -> str:
    """The kind of shared disk that a folder lies on; "" for one of this computer.

    Where that cannot be found out (macOS), the disk counts as this computer's.
    """
    real = folder.resolve()
    if os.name == "nt":
        import ctypes

        kind = ctypes.windll.kernel32.GetDriveTypeW(real.anchor)
        return "network drive" if kind == _REMOTE else ""
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    kind = kind_of_mount(PurePosixPath(real), mounts)
    return kind if kind in SHARED else ""


def kind_of_mount(path: PurePosixPath, mounts: str) -> str:
    r"""The file system of a path, by the lines of /proc/mounts; "" when none is found.

    >>> kind_of_mount(PurePosixPath("/my home/anna"), "d / ext4\nd /my\\040home nfs4")
    'nfs4'
    """
    found, depth = "", -1
    for line in mounts.splitlines():
        _, place, kind, *_ = [*line.split(), "", "", ""]
        # Spaces and the like are written as \040.
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place)
        point = PurePosixPath(place)
        # The last of those at one place is on top.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = kind, len(point.parts)
    return found
