"""Detects the file system of a path."""

from pathlib import Path

NETWORK_FILE_SYSTEMS = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse.glusterfs", "afs", "9p"),
    *("fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.juicefs", "fuse.ceph", "virtiofs"),
}

MOUNTS = Path("/proc/mounts")


def file_system(path: Path, mounts: str | None = None) -> str:
    """The type of the file system of a path, existing or not, as named by Linux; empty on other systems."""
    if mounts is None:
        if not MOUNTS.is_file():
            return ""
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    fields = (line.split() for line in mounts.splitlines())
    # The kernel writes a space in a path as \040. Of several mounts at the same place, the last one is visible.
    points = [(mount.replace("\\040", " "), kind) for _, mount, kind, *_ in fields]
    holding = [(mount, kind) for mount, kind in points if path.resolve().is_relative_to(mount)]
    return max(reversed(holding), key=lambda pair: len(pair[0]))[1] if holding else ""


def is_on_network(path: Path) -> bool:
    """Whether a path is on a network file system."""
    return file_system(path) in NETWORK_FILE_SYSTEMS
