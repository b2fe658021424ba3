# SPDX-License-Identifier: Apache-2.0
"""tests/model on a mounted volume, and a look at what it left."""

import os

from helpers import read_file
from mountpoint import RemountService, model_program, run


def play(volume, plain, seed, *options):
    """One run of the model; the seed is in its output, which a failure shows."""
    program = model_program()
    assert program, "no tk_model: build with -DTK_TESTS=ON"
    command = [*volume.prefix, program, "--dir-a", volume.mnt, "--dir-b", plain, *options]
    if seed is not None:
        command += ["--seed", seed]
    with RemountService(volume) as service:
        done = run(*command, "--remount", service.command, check=False, timeout=3000)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-30000:]


def assert_same_beside_content(decrypted, path, relative):
    """The target of a symlink, and the attributes of anything else."""
    below = decrypted.backing_path(relative)
    if os.path.islink(path):
        assert decrypted.target(below) == os.readlink(os.fsencode(path)), path
    else:
        expected = {os.fsencode(name): os.getxattr(path, name) for name in os.listxattr(path)}
        assert decrypted.attributes(below) == expected, path


def assert_reader_agrees(volume, plain):
    """Every name, target and attribute, and every file byte for byte, as the independent reader decrypts it."""
    decrypted = volume.reader()
    listed = {path for path, _ in decrypted.walk()}
    expected = set()
    for directory, subdirectories, names in os.walk(plain):
        for name in subdirectories + names:
            expected.add(os.path.relpath(os.path.join(directory, name), plain))
        for name in subdirectories + names:
            path = os.path.join(directory, name)
            assert_same_beside_content(decrypted, path, os.path.relpath(path, plain))
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with decrypted.open(os.path.relpath(path, plain)) as f:
                    assert f.read() == read_file(path), path
    assert listed == expected
