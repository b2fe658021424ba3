# SPDX-License-Identifier: Apache-2.0
"""The Debian package, the RPM, and what both install: unit, completions, examples, profile."""

import os
import pathlib
import re
import shutil
import subprocess

import mountpoint
import pytest
from mountpoint import run

SOURCE = pathlib.Path(__file__).parents[2]
PACKAGING = SOURCE / "packaging"
EXAMPLES = sorted((PACKAGING / "examples").glob("*.conf"))
CONFIGURATION_WRONG = 3
LONG = pytest.mark.skipif(
    "TURNKEYFS_TEST_LONG" not in os.environ, reason="builds once more: TURNKEYFS_TEST_LONG=1"
)


def needs(*programs):
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(bool(missing), reason=f"not here: {', '.join(missing)}")


def copy_source(directory):
    """What git has, as a clean clone would have it."""
    directory.mkdir(parents=True)
    listed = run("git", "-C", SOURCE, "ls-files", "-z", "-co", "--exclude-standard").stdout
    for name in filter(None, listed.split("\0")):
        if (SOURCE / name).exists():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(SOURCE / name, directory / name)
    return directory


# Of systemd-rpm-macros and RPM distributions; Debian's rpm has none of them.
RPM_MACROS = {"_unitdir": "/usr/lib/systemd/system", "_tmpfilesdir": "/usr/lib/tmpfiles.d", "_docdir": "/usr/share/doc"}


def build_deb(directory, umask=0o022, zone="UTC"):
    """The .deb and the .changes of a build in @directory."""
    source = copy_source(directory / "source")
    done = subprocess.run(
        ["dpkg-buildpackage", "-us", "-uc", "-b", "-d"],
        cwd=source,
        env=os.environ | {"DEB_BUILD_OPTIONS": "parallel=3", "TZ": zone},
        umask=umask,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (deb,) = directory.glob("turnkeyfs_*.deb")
    (changes,) = directory.glob("turnkeyfs_*.changes")
    return deb, changes


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    if mountpoint.sanitized():
        pytest.skip("the package is built without sanitizers: once is enough")
    if not shutil.which("dpkg-buildpackage") or not shutil.which("dh"):
        pytest.skip("no debhelper here")
    return build_deb(tmp_path_factory.mktemp("deb"))


@pytest.mark.deadline(1600)
def test_the_package_holds_what_an_administrator_expects(package):
    deb, _ = package
    listed = {line.split(maxsplit=5)[5] for line in run("dpkg-deb", "-c", deb).stdout.splitlines()}
    for path in (
        "./usr/bin/turnkeyfs",
        "./usr/sbin/mount.fuse.turnkeyfs",
        "./usr/lib/systemd/system/turnkeyfs@.service",
        "./usr/lib/tmpfiles.d/turnkeyfs.conf",
        "./usr/share/bash-completion/completions/turnkeyfs",
        "./usr/share/zsh/vendor-completions/_turnkeyfs",
        "./usr/share/fish/vendor_completions.d/turnkeyfs.fish",
        "./usr/share/doc/turnkeyfs/examples/azure.conf",
        "./usr/share/doc/turnkeyfs/examples/apparmor.profile",
        "./usr/share/doc/turnkeyfs/examples/monitoring/grafana-dashboard.json",
        "./usr/share/doc/turnkeyfs/examples/monitoring/turnkeyfs.rules.yml",
        "./usr/share/man/man1/turnkeyfs.1.gz",
        "./usr/share/man/man5/turnkeyfs.conf.5.gz",
        "./usr/share/man/man8/mount.fuse.turnkeyfs.8.gz",
    ):
        assert path in listed, (path, sorted(listed))
    # Each Debian has /lib and /sbin as links to what is in /usr: a newer lintian wants to see what is meant.
    assert {path for path in listed if not path.startswith("./usr/") or "/local/" in path} == {"./"}, listed


@needs("lintian")
@pytest.mark.deadline(1600)
def test_lintian_finds_nothing(package):
    _, changes = package
    # The one thing that is known: the project has no public mail address yet.
    known = "bogus-mail-host,bogus-mail-host-in-debian-changelog"
    done = run(
        "lintian", "--allow-root", "--fail-on", "error,warning", "--suppress-tags", known, changes,
        check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@LONG
@pytest.mark.deadline(3200)
def test_the_package_is_reproducible(package, tmp_path):
    """In another directory, with a longer name, later, in another time zone, under another umask."""
    first, _ = package
    second, _ = build_deb(tmp_path / "somewhere" / "quite-different", 0o077, "Pacific/Auckland")
    assert first.read_bytes() == second.read_bytes(), f"diffoscope {first} {second}"


@LONG
@needs("rpmbuild")
@pytest.mark.deadline(1600)
def test_the_rpm_is_built_from_its_spec(package, tmp_path):
    version = re.search(r"^Version: *(\S+)", (PACKAGING / "turnkeyfs.spec").read_text(), re.M).group(1)
    source = copy_source(tmp_path / f"turnkeyfs-{version}")
    (tmp_path / "SOURCES").mkdir()
    run("tar", "-C", tmp_path, "-czf", tmp_path / f"SOURCES/turnkeyfs-{version}.tar.gz", source.name)
    macros = RPM_MACROS | {"_topdir": tmp_path, "debug_package": "%{nil}"}
    defines = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
    done = run("rpmbuild", "-bb", "--nodeps", *defines, PACKAGING / "turnkeyfs.spec", check=False, timeout=1500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (rpm,) = tmp_path.glob("RPMS/*/*.rpm")
    deb, _ = package
    assert placed("rpm", "-qlvp", rpm) == placed("dpkg-deb", "-c", deb)
    if shutil.which("rpmlint"):
        run("rpmlint", "--strict", "-r", PACKAGING / "turnkeyfs.rpmlintrc", rpm)


def placed(*command):
    """The files of a package, without what its kind adds, compresses and calls otherwise."""
    paths = {line.split()[-1] for line in run(*command).stdout.splitlines() if line[0] == "-"}
    paths = {re.sub(r"^\.?/(usr/)?", "", path.removesuffix(".gz")) for path in paths}
    paths = {re.sub(r"^share/doc/turnkeyfs-[^/]*/", "share/doc/turnkeyfs/", path) for path in paths}
    added = re.compile("share/licenses/|lib/.build-id/|share/doc/turnkeyfs/(copyright|changelog)$")
    return {path for path in paths if not added.match(path)}


@needs("rpmlint")
def test_rpmlint_finds_nothing_in_the_spec():
    """But that there is no package in which the reasons beside it would be needed."""
    said = run("rpmlint", "--strict", PACKAGING / "turnkeyfs.spec", check=False).stdout
    assert "1 specfiles checked" in said
    lines = [line for line in said.splitlines() if re.search(": [EW]: (?!unused-rpmlintrc-filter)", line)]
    assert lines == []


@needs("rpmspec")
def test_the_spec_is_well_formed():
    assert "Name:" in run("rpmspec", "-P", PACKAGING / "turnkeyfs.spec").stdout


def test_versions_agree():
    project = re.search(r"project\(turnkeyfs VERSION (\S+)", (SOURCE / "CMakeLists.txt").read_text()).group(1)
    assert f"turnkeyfs ({project}) " in (SOURCE / "debian" / "changelog").read_text()
    assert re.search(rf"^Version: *{re.escape(project)}$", (PACKAGING / "turnkeyfs.spec").read_text(), re.M)


# --- the unit ---


@pytest.fixture
def unit(tmp_path):
    """The template, as the build fills it, and an instance of it."""
    template = (PACKAGING / "systemd" / "turnkeyfs@.service.in").read_text()
    path = tmp_path / "turnkeyfs@.service"
    path.write_text(template.replace("@TK_BIN@", mountpoint.turnkeyfs()).replace("Documentation=", "#"))
    return tmp_path / "turnkeyfs@test.service"


@needs("systemd-analyze")
def test_systemd_understands_the_unit(unit):
    done = run("systemd-analyze", "verify", unit, check=False)
    # It looks at the machine's other units, too.
    ours = [line for line in done.stderr.splitlines() if "turnkeyfs" in line]
    assert done.returncode == 0 and not ours, done.stderr


@needs("systemd-analyze")
def test_the_units_exposure_is_what_the_document_says(unit):
    """In each systemd: 262 takes a unit that does not say PrivateMounts=no for one that says yes."""
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit).stdout
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said).group(1)
    assert float(level) <= 5.3
    assert f"`systemd-analyze security` says {level}" in (SOURCE / "docs" / "installation.md").read_text()


def test_the_unit_makes_no_mount_namespace(unit):
    """In one of its own the mount would be seen by nobody else: systemd.exec(5)."""
    text = unit.with_name("turnkeyfs@.service").read_text()
    hides = re.compile(
        r"^(?!PrivateMounts=no$)"
        r"(Protect(System|Home|Proc|KernelTunables|KernelModules|KernelLogs|ControlGroups)|ProcSubset"
        r"|Private(Tmp|Devices|Mounts|IPC|Users|Network|PIDs|BPF)|NetworkNamespacePath|MountFlags"
        r"|RootDirectory|RootImage|TemporaryFileSystem"
        r"|(ReadWrite|ReadOnly|Inaccessible|Exec|NoExec)Paths|Bind\w*Paths|\w+Images|ExtensionDirectories|LogNamespace)=",
        re.M,
    )
    assert not hides.search(text), hides.search(text)


def test_the_units_filter_leaves_the_daemon_room_for_its_own(unit):
    """Otherwise a daemon under the unit would be less hardened than one without."""
    text = unit.with_name("turnkeyfs@.service").read_text()
    allowed = set(" ".join(re.findall(r"^SystemCallFilter=([^~\n].*)$", text, re.M)).split())
    assert {"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} <= allowed


# --- completions, examples, profile ---


def environment():
    return os.environ | {"PATH": f"{os.path.dirname(mountpoint.turnkeyfs())}:{os.environ['PATH']}"}


def bash_completes(*words):
    script = (
        f'. {PACKAGING}/completions/turnkeyfs.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        'eval "$(complete -p turnkeyfs | sed "s/.*-F \\([^ ]*\\) .*/\\1/")"; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return set(run("bash", "-c", script, "bash", *words, env=environment()).stdout.split())


def fish_completes(*words):
    script = f"source {PACKAGING}/completions/turnkeyfs.fish; complete -C '{' '.join(words)}'"
    return set(run("fish", "-c", script, env=environment()).stdout.split())


@pytest.mark.parametrize("completes", [bash_completes, pytest.param(fish_completes, marks=needs("fish"))])
def test_completions(completes):
    assert completes("turnkeyfs", "u") == {"umount"}
    assert {"init", "mount", "doctor", "key", "version"} <= completes("turnkeyfs", "")
    assert completes("turnkeyfs", "key", "r") == {"rotate", "recover", "readmit"}
    assert {"add", "remove", "list"} == completes("turnkeyfs", "protector", "")
    assert {"--config", "--foreground", "--options"} == completes("turnkeyfs", "mount", "--")
    assert {"--config", "--json"} == completes("turnkeyfs", "key", "list", "--")
    assert {"--interval", "--json", "--watch"} == completes("turnkeyfs", "status", "--")
    assert completes("turnkeyfs", "help", "um") == {"umount"}


@needs("zsh")
def test_zsh_parses_its_completion():
    run("zsh", "-n", PACKAGING / "completions" / "_turnkeyfs")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_is_a_configuration(example, tmp_path):
    """Its vault or token is not there, so doctor fails; but not over the configuration."""
    done = run(mountpoint.turnkeyfs(), "doctor", "-c", example, check=False, timeout=110)
    assert done.returncode != CONFIGURATION_WRONG, done.stdout + done.stderr
    broken = tmp_path / "broken.conf"
    broken.write_text(example.read_text().replace("provider", "providers"))
    done = run(mountpoint.turnkeyfs(), "doctor", "-c", broken, check=False, timeout=110)
    assert done.returncode == CONFIGURATION_WRONG, "this test can fail"


def test_there_is_an_example_for_each_provider():
    assert {path.stem for path in EXAMPLES} == {"local", "azure", "managed-hsm", "pkcs11"}


@needs("apparmor_parser")
def test_apparmor_parses_the_profile():
    run("apparmor_parser", "-Q", "-K", "--skip-kernel-load", PACKAGING / "apparmor.profile")


def test_the_apparmor_profile_lets_the_daemon_keep_cpus_awake():
    """Refused, it would not say so: auto takes that for a machine that does not gain."""
    profile = (PACKAGING / "apparmor.profile").read_text()
    paths = re.findall(r'"(/(?:dev|sys)/[^"]+)"', (SOURCE / "fs" / "cpulatency.c").read_text())
    assert len(paths) == 3
    for path in paths:
        assert f"  {path.replace('/sys/', '@{sys}/')} r" in profile, path


# --- fstab ---


@pytest.fixture
def fstab(work, make_volume):
    """mount(8) in a mount namespace of its own, with an /etc/fstab and a helper of ours."""
    volume = make_volume(mount=False)
    helper = work / "sbin"
    helper.mkdir()
    program = helper / "mount.fuse.turnkeyfs"
    text = (PACKAGING / "mount.fuse.turnkeyfs").read_text()
    program.write_text(text.replace("PATH=", f"PATH={os.path.dirname(mountpoint.turnkeyfs())}:", 1))
    program.chmod(0o755)
    table = work / "fstab"

    def mount_and(options, script, words="-a"):
        table.write_text(f"{volume.cipher} {volume.mnt} fuse.turnkeyfs {options} 0 0\n")
        inside = (
            f"set -e; mount --make-rprivate /; mount --bind {helper} {os.path.realpath('/sbin')}; "
            f"mount -T {table} {words}; {script}; "
            f"{mountpoint.turnkeyfs()} umount {volume.mnt}"
        )
        return run("unshare", "-m", "sh", "-c", inside, check=False, timeout=100)

    return volume, mount_and


def test_fstab_with_all_that_is_usual(fstab):
    volume, mount_and = fstab
    options = (
        f"config={volume.conf},_netdev,nofail,x-systemd.automount,x-systemd.mount-timeout=30,"
        "comment=mail,noatime,nodev,nosuid,defaults"
    )
    done = mount_and(options, f"findmnt -no OPTIONS {volume.mnt}; echo hello > {volume.mnt}/file")
    assert done.returncode == 0, done.stderr
    kept = done.stdout.strip().split(",")
    assert {"noatime", "nodev", "nosuid"} <= set(kept), kept
    volume.mount()
    assert (volume.mnt / "file").read_text() == "hello\n"


def test_fstab_read_only(fstab):
    volume, mount_and = fstab
    done = mount_and(f"config={volume.conf},ro,noauto", f"! touch {volume.mnt}/file", volume.mnt)
    assert done.returncode == 0, done.stderr
    assert "Read-only" in done.stderr


def test_fstab_with_a_mistake_says_which(fstab):
    volume, mount_and = fstab
    done = mount_and(f"config={volume.conf},bogus", "true", volume.mnt)
    assert done.returncode == 2 and "'bogus'" in done.stderr, (done.returncode, done.stderr)
