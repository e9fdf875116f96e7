"""A disk that takes its time: a file system that shows what lies in a folder, and waits before it opens, reads, writes,
flushes, makes, renames or removes: python slow_disk.py MOUNT_POINT --folder FOLDER --seconds SECONDS"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOUNTED_WITHIN_S = 20


def slow_disk_possible() -> bool:
    """Whether this process may mount it."""
    try:
        import fuse  # noqa: F401
    except ImportError:
        return False
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


@contextmanager
def slow_disk(folder: Path, seconds: float) -> Iterator[Path]:
    """folder/disk, which waits that long before each of what it does; what is written there lies in folder/kept."""
    kept, at = folder / "kept", folder / "disk"
    kept.mkdir()
    at.mkdir()
    command = [sys.executable, __file__, str(at), f"--folder={kept}", f"--seconds={seconds}", "-f"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + MOUNTED_WITHIN_S
    while not at.is_mount():
        assert server.poll() is None and time.monotonic() < deadline, server.communicate()[1]
        time.sleep(0.05)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)
        server.kill()
        server.communicate()


def serve() -> None:
    import fuse

    fuse.fuse_python_api = (0, 2)

    class SlowDisk(fuse.Fuse):
        folder, seconds = "", "0"

        def at(self, path: str) -> str:
            return self.folder + path

        def wait(self) -> None:
            time.sleep(float(self.seconds))

        def getattr(self, path: str) -> os.stat_result:
            return os.lstat(self.at(path))

        def readdir(self, path: str, offset: int) -> Iterator[fuse.Direntry]:
            return map(fuse.Direntry, [".", "..", *os.listdir(self.at(path))])

        def statfs(self) -> os.statvfs_result:
            return os.statvfs(self.folder)

        def readlink(self, path: str) -> str:
            return os.readlink(self.at(path))

        def chmod(self, path: str, mode: int) -> None:
            os.chmod(self.at(path), mode)

        def utime(self, path: str, times: tuple[int, int]) -> None:
            os.utime(self.at(path), times)

        def mkdir(self, path: str, mode: int) -> None:
            self.wait()
            os.mkdir(self.at(path), mode)

        def rmdir(self, path: str) -> None:
            self.wait()
            os.rmdir(self.at(path))

        def unlink(self, path: str) -> None:
            self.wait()
            os.unlink(self.at(path))

        def rename(self, path: str, to: str) -> None:
            self.wait()
            os.rename(self.at(path), self.at(to))

        def link(self, path: str, to: str) -> None:
            self.wait()
            os.link(self.at(path), self.at(to))

        def symlink(self, target: str, path: str) -> None:
            self.wait()
            os.symlink(target, self.at(path))

        def truncate(self, path: str, length: int) -> None:
            self.wait()
            os.truncate(self.at(path), length)

    disk = SlowDisk()

    class OpenFile:
        def __init__(self, path: str, flags: int, *mode: int):
            disk.wait()
            self.descriptor = os.open(disk.at(path), flags & ~os.O_APPEND, *mode)

        def read(self, length: int, offset: int) -> bytes:
            disk.wait()
            return os.pread(self.descriptor, length, offset)

        def write(self, data: bytes, offset: int) -> int:
            disk.wait()
            return os.pwrite(self.descriptor, data, offset)

        def fsync(self, only_data: int) -> None:
            disk.wait()
            os.fsync(self.descriptor)

        def ftruncate(self, length: int) -> None:
            os.ftruncate(self.descriptor, length)

        def fgetattr(self) -> os.stat_result:
            return os.fstat(self.descriptor)

        def release(self, flags: int) -> None:
            os.close(self.descriptor)

    disk.file_class: Any = OpenFile
    for option in ("folder", "seconds"):
        disk.parser.add_option(f"--{option}", dest=option)
    disk.fuse_args.add("big_writes")
    disk.parse(values=disk, errex=1)
    disk.main()


if __name__ == "__main__":
    serve()
