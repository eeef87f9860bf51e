"""Network file systems are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdfast.errors import DataError
from kdfast.teacher.api.journal import Journal
from kdfast.teacher.api.journal.mounts import check_local, file_system, is_network

PAGE = 4096
REMEDY = "put a copy in its place that `kdfast journal backup` wrote"


LINUX = """22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/nfs rw - nfs4 server:/data rw,vers=4.2
31 30 0:41 / /mnt/nfs/local rw - ext4 /dev/sdb1 rw
32 22 0:42 / /mnt/two\\040words rw master:3 propagate_from:2 - fuse.sshfs me@host: rw
33 22 0:43 / /over rw - nfs server:/old rw
34 22 0:44 / /over rw - xfs /dev/sdc1 rw
"""
MAC = """/dev/disk1s1 on / (apfs, local, read-only, journaled)
//me@host/share on /Volumes/share (smbfs, nodev, nosuid, mounted by me)
host:/export on /Volumes/a (b) (nfs)
"""


@pytest.mark.parametrize(
    ("table", "place", "kind"),
    [
        (LINUX, "/a.db", "ext4"),
        (LINUX, "/mnt/nfs/a.db", "nfs4"),
        (LINUX, "/mnt/nfsx/a.db", "ext4"),
        (LINUX, "/mnt/nfs/local/a.db", "ext4"),
        (LINUX, "/mnt/two words/a.db", "fuse.sshfs"),
        (LINUX, "/over/a.db", "xfs"),
        (MAC, "/Users/me/a.db", "apfs"),
        (MAC, "/Volumes/share/a.db", "smbfs"),
        (MAC, "/Volumes/a (b)/a.db", "nfs"),
        ("", "/a.db", None),
        ("nonsense\n1 2 - \n\n", "/a.db", None),
    ],
)
def test_the_kind_of_a_file_system_is_read_from_the_mount_table(
    table: str, place: str, kind: str | None
) -> None:
    assert file_system(Path(place), table) == kind


def test_network_file_systems_are_known_by_their_kind() -> None:
    network = (
        "nfs nfs4 cifs smb3 smbfs 9p afs ceph lustre gpfs glusterfs beegfs webdav fuse.sshfs fuse.s3fs fuse.rclone"
        " fuse.gcsfuse fuse.glusterfs"
    )
    local = "ext4 xfs btrfs zfs apfs hfs tmpfs overlay f2fs exfat ntfs3 fuseblk fuse.mergerfs virtiofs"
    assert [kind for kind in network.split() if not is_network(kind)] == []
    assert [kind for kind in local.split() if is_network(kind)] == []


def test_a_journal_on_a_network_file_system_is_refused(folder: Path) -> None:
    table = f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:40 / {folder.resolve()} rw - nfs4 server:/data rw"
    with pytest.raises(DataError, match=r"network file system \(nfs4\).*name a file on a local disk"):
        Journal(folder / "new" / "answers.db", mount_table=table)
    assert list(folder.iterdir()) == []
    link = folder.parent / f"{folder.name}-link"
    link.symlink_to(folder)
    try:
        with pytest.raises(DataError, match="nfs4"):
            check_local(link / "answers.db", table)
    finally:
        link.unlink()
