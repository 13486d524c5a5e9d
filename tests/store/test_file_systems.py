from pathlib import Path

import pytest

from aligndistill.store.file_systems import NETWORK_FILE_SYSTEMS, file_system

MOUNTS = r"""overlay / overlay rw 0 0
server:/home /mnt/home nfs4 rw 0 0
/dev/sdb /mnt/home/scratch ext4 rw 0 0
server:/b /mnt/with\040space lustre rw 0 0
tmpfs /mnt/twice tmpfs rw 0 0
server:/c /mnt/twice cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/elsewhere/cache", "overlay"),
        ("/mnt/home/me/runs/store", "nfs4"),
        ("/mnt/homework", "overlay"),
        ("/mnt/home/scratch/x", "ext4"),
        ("/mnt/with space/x", "lustre"),
        ("/mnt/twice/x", "cifs"),
    ],
)
def test_the_innermost_mount_tells(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind


def test_some_are_network_and_some_are_not() -> None:
    assert {"nfs", "nfs4", "lustre", "cifs"} < NETWORK_FILE_SYSTEMS
    assert not NETWORK_FILE_SYSTEMS & {"ext4", "xfs", "overlay", "tmpfs", "btrfs"}
