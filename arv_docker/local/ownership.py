# SPDX-License-Identifier: Apache-2.0
"""Ownership of files and folders on this machine: the users besides this one who may change them.

What others may write to is no cache: somebody could put another image under a name there, or change a file after it
was verified. The superuser may change everything, and counts as this user.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from ..errors import DiskError

_ACL = "system.posix_acl_access"
_OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH


def check_private(folder: Path, setting: str = "XDG_CACHE_HOME") -> None:
    """Raise DiskError for a cache folder that another user owns or may write to; FileNotFoundError where there is none.

    In one with the sticky bit everybody may put files, and nobody may replace those of this user; each file there is
    judged by ``is_ours``. A group that has no other members counts for nothing. ``setting`` is the variable that names
    another folder.
    """
    status = folder.stat()
    if not _belongs_to_user(status):
        raise DiskError(
            f"the cache folder {folder} belongs to {_user_name(status.st_uid)}, who could put any image there, and is "
            f"not used. Set {setting} to a folder of your own."
        )
    if not status.st_mode & stat.S_ISVTX and (writers := _other_writers(folder, status)):
        raise DiskError(
            f"{writers} may write to the cache folder {folder}, and could put any image there, so that it is not used. "
            f"Remove what is in it and make it yours alone (chmod go-w '{folder}'), or set {setting} to a folder "
            "of your own."
        )


def is_ours(path: Path) -> bool:
    """True for a regular file, no link, that belongs to this user and is writable for no other user."""
    try:
        status = path.lstat()
        closed = not path.parent.stat().st_mode & _OTHERS_ENTER
    except OSError:
        return False
    ours = stat.S_ISREG(status.st_mode) and _belongs_to_user(status)
    return ours and (closed or not _other_writers(path, status))


def open_ours(path: Path) -> IO[bytes]:
    """Open a file of the user's cache to read, following no link; raises OSError also for one that is not ``is_ours``.

    A pipe is not waited for.
    """
    file = open(path, "rb", opener=_open_no_link)  # noqa: SIM115 -- the caller closes it
    with suppress(OSError):
        if is_ours(path) and os.path.samestat(path.lstat(), os.fstat(file.fileno())):
            return file
    file.close()
    raise OSError(errno.EPERM, "it is no file that this user alone may write", str(path))


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def _other_writers(path: Path, status: os.stat_result) -> str:
    """Return in words who may write to a file or folder besides the owner; an empty text for nobody."""
    if status.st_mode & stat.S_IWOTH:
        return "everybody"
    if status.st_mode & stat.S_IWGRP and not _is_users_group_alone(path, status.st_gid):
        return f"the group {_group_name(status.st_gid)}"
    return ""


def _belongs_to_user(status: os.stat_result) -> bool:
    return status.st_uid in (os.geteuid(), 0)


def _is_users_group_alone(path: Path, gid: int) -> bool:
    """True for a group with this user's name and no other members, as many systems have it."""
    with suppress(OSError):
        os.getxattr(path, _ACL)  # where there is a list of users, the group's bits are about them
        return False
    with suppress(KeyError):
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
        return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
    return False


def _user_name(uid: int) -> str:
    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user of number {uid}"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"of number {gid}"
