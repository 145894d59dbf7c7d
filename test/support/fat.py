"""A disk like FAT, over FUSE: `python3 fat.py BACKING MOUNTPOINT`. Names fold case and keep the letters they were made with;
there are no links of either kind and no permission bits; times have steps of two seconds. Needs Debian's python3-fusepy and
libfuse2. Ends when it is unmounted."""

import errno
import os
import sys

try:
    from fusepy import FUSE, FuseOSError, Operations
except ImportError:
    from fuse import FUSE, FuseOSError, Operations

BACKING, MOUNTPOINT = sys.argv[1:3]
STAT = ("st_atime", "st_ctime", "st_mtime", "st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino")
SPACE = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_frsize", "f_namemax", "f_files", "f_ffree")


def refuse(code):
    raise FuseOSError(code)


def stored(path):
    """Where a path is kept, by whatever letters; components that nothing has stay as they are."""
    place = BACKING
    for wanted in filter(None, path.split("/")):
        try:
            kept = {name.casefold(): name for name in os.listdir(place)}
        except OSError:
            kept = {}
        place = os.path.join(place, kept.get(wanted.casefold(), wanted))
    return place


def fresh(path):
    """Where something new of this name goes."""
    if os.path.lexists(stored(path)):
        refuse(errno.EEXIST)
    return os.path.join(stored(os.path.dirname(path)), os.path.basename(path))


class Fat(Operations):
    def getattr(self, path, fh=None):
        info = os.lstat(stored(path))
        return {name: getattr(info, name) for name in STAT}

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(stored(path))]

    def statfs(self, path):
        info = os.statvfs(BACKING)
        return {name: getattr(info, name) for name in SPACE}

    def rename(self, old, new):
        source, target = stored(old), stored(new)
        if source != target and os.path.lexists(target):
            os.rename(source, target)
            source = target
        os.rename(source, os.path.join(stored(os.path.dirname(new)), os.path.basename(new)))

    def utimens(self, path, times=None):
        if times is not None:
            times = tuple(at - at % 2 for at in times)
        os.utime(stored(path), times)

    def access(self, path, mode):
        if not os.path.lexists(stored(path)):
            refuse(errno.ENOENT)

    def link(self, target, source):
        refuse(errno.EPERM)

    def symlink(self, target, source):
        refuse(errno.EPERM)

    def chmod(self, path, mode):
        pass

    def chown(self, path, uid, gid):
        pass

    def mkdir(self, path, mode):
        os.mkdir(fresh(path), 0o755)

    def rmdir(self, path):
        os.rmdir(stored(path))

    def unlink(self, path):
        os.unlink(stored(path))

    def create(self, path, mode, info=None):
        return os.open(fresh(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)

    def open(self, path, flags):
        return os.open(stored(path), flags & ~os.O_NOFOLLOW)

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(stored(path), length)

    def fsync(self, path, datasync, fh):
        os.fsync(fh)

    def release(self, path, fh):
        os.close(fh)


FUSE(Fat(), MOUNTPOINT, foreground=True, nothreads=True, use_ino=True)
