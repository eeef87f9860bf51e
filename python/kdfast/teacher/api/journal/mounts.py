"""Whether a folder lies on a network file system, where the locks of SQLite cannot be trusted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from kdfast.errors import DataError

NETWORK = frozenset(
    [
        "9p",
        "acfs",
        "afp",
        "afpfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "fhgfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs3",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "pvfs2",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "vboxsf",
        "webdav",
        "wekafs",
    ]
)
"""File systems that several machines may share, as Linux and macOS name them."""

NETWORK_FUSE = re.compile(
    r"(ceph|curlftpfs|davfs|gcsfuse|gluster|goofys|hdfs|juicefs|nfs|rclone|s3|seaweed|smb|sshfs|blobfuse|beegfs)"
)
"""Programs of `fuse.NAME` that keep files on other machines."""

_LINUX_TABLE = Path("/proc/self/mountinfo")
_MAC_LINE = re.compile(r"^.+? on (?P<point>/.*) \((?P<kind>[^,)]+)")


def check_local(path: Path, mount_table: str | None = None) -> None:
    """Checks that a file lies on a disk of this machine. Where the system does not tell, nothing is refused.

    Args:
        path: the file; it need not exist.
        mount_table: the mounted file systems, as `/proc/self/mountinfo` (Linux) or `mount` (macOS) writes them;
            None = this machine's.

    Raises:
        DataError: it lies on a network file system; names the remedy.

    Examples:
        >>> check_local(Path("/data/answers.db"), "30 1 0:40 / /data rw - nfs4 server:/data rw")
        Traceback (most recent call last):
        ...
        kdfast.errors.DataError: /data/answers.db: a journal cannot lie on a network file system (nfs4): ...
    """
    table = _read_table() if mount_table is None else mount_table
    kind = file_system(path.resolve(), table)
    if kind is not None and is_network(kind):
        raise DataError(
            f"a journal cannot lie on a network file system ({kind}): its locks fail there; "
            "name a file on a local disk, and copy it with `kdfast journal backup`",
            str(path),
        )


def is_network(kind: str) -> bool:
    """Whether a file system of this kind keeps its files on another machine.

    Examples:
        >>> [is_network(kind) for kind in ("nfs4", "fuse.sshfs", "ext4", "fuse.mergerfs", "overlay")]
        [True, True, False, False, False]
    """
    name = kind.lower()
    return name in NETWORK or (name.startswith("fuse.") and NETWORK_FUSE.search(name[5:]) is not None)


def file_system(path: Path, mount_table: str) -> str | None:
    r"""The kind of the file system that holds an absolute path; None if the table does not say.

    Examples:
        >>> table = "22 1 8:1 / / rw - ext4 /dev/sda rw\n30 22 0:40 / /mnt/a\\040b rw - cifs //host/b rw"
        >>> file_system(Path("/mnt/a b/c"), table), file_system(Path("/mnt/a"), table)
        ('cifs', 'ext4')
        >>> file_system(Path("/Volumes/x/y"), "//me@host/x on /Volumes/x (smbfs, nodev)")
        'smbfs'
    """
    found: tuple[int, str] | None = None
    for line in mount_table.splitlines():
        mounted = _linux_mount(line) or _mac_mount(line)
        if mounted is None:
            continue
        point, kind = mounted
        # A later mount hides an earlier one at the same place.
        if path.is_relative_to(point) and (found is None or len(Path(point).parts) >= found[0]):
            found = (len(Path(point).parts), kind)
    return found and found[1]


def _linux_mount(line: str) -> tuple[str, str] | None:
    """(mount point, kind) of a line of mountinfo: `ID PARENT DEVICE ROOT POINT OPTIONS ... - KIND SOURCE OPTIONS`."""
    before, dash, after = line.partition(" - ")
    fields, rest = before.split(" "), after.split(" ")
    if not dash or len(fields) < 6 or not fields[0].isdigit():
        return None
    point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
    return point, rest[0]


def _mac_mount(line: str) -> tuple[str, str] | None:
    """(mount point, kind) of a line of `mount` on macOS: `SOURCE on POINT (KIND, OPTIONS)`."""
    found = _MAC_LINE.match(line)
    return (found["point"], found["kind"]) if found else None


def _read_table() -> str:
    """The table of this machine; "" where it cannot be read."""
    try:
        if sys.platform == "darwin":
            return subprocess.run(
                ["/sbin/mount"], capture_output=True, text=True, timeout=10, check=False
            ).stdout
        return _LINUX_TABLE.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, subprocess.TimeoutExpired):
        return ""
