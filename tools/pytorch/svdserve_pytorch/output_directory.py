"""A directory that appears complete or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile


@contextlib.contextmanager
def output_directory(target, force=False):
    """Inside `with`: a temporary sibling to write into. It becomes `target` at the
    end; after an exception it is gone and `target` is as it was.

    FileExistsError if something is at `target`; with `force` a model's directory
    (one with a config.json, or an empty one) is replaced, nothing else.
    """
    target = pathlib.Path(os.path.abspath(target))
    check_target(target, force)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=target.name + ".tmp-", dir=target.parent) as scratch:
        written = pathlib.Path(scratch) / "new"  # mkdtemp's own is private
        written.mkdir()
        yield written
        flush(written)
        check_target(target, force)  # it may have appeared meanwhile
        old = pathlib.Path(scratch) / "old"
        if target.exists():
            target.rename(old)
        try:
            written.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        flush_one(target.parent)


def check_target(target, force):
    if not os.path.lexists(target):
        return
    if not force:
        raise FileExistsError(f"{target} exists; choose another name, or force to replace it")
    is_model = not target.is_symlink() and target.is_dir() and (
        (target / "config.json").exists() or not any(target.iterdir()))
    if not is_model:
        raise FileExistsError(f"{target} is not a model's directory (it has no config.json); it is not replaced")


def flush(root):
    for folder, _, files in os.walk(root):
        for name in files:
            flush_one(os.path.join(folder, name))
        flush_one(folder)


def flush_one(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
