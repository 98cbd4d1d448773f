"""What a profile relies on outside of its folder. Programs: tests/mep/reader/test_trust_of_files.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from mep.profile.errors import ConfigError
from mep.reader.outside import check_pam_service


@pytest.fixture
def pam_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pam.d"
    folder.mkdir(mode=0o755)
    (folder / "mep").write_text("auth required pam_deny.so\n")
    return folder


def test_a_pam_service_that_is_there(pam_folder: Path) -> None:
    check_pam_service("mep", pam_folder)
    check_pam_service("MEP", pam_folder)  # PAM reads the same file


@pytest.mark.parametrize("name", ["nosuch", "", ".", "..", "../pam.d/mep", "/etc/passwd", "sub/mep"])
def test_a_pam_service_that_is_not_there(pam_folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"pam\.service_name|put a file there") as caught:
        check_pam_service(name, pam_folder)
    assert str(pam_folder) in str(caught.value)


def test_the_package_installs_a_pam_service(pam_folder: Path) -> None:
    (pam_folder / "mep").unlink()
    with pytest.raises(ConfigError, match=rf"^{pam_folder}/mep: no such file; the package installs /etc/pam\.d/mep"):
        check_pam_service("mep", pam_folder)


def test_a_pam_service_that_others_can_change(pam_folder: Path) -> None:
    (pam_folder / "mep").chmod(0o664)
    with pytest.raises(ConfigError, match=f"chmod go-w {pam_folder}/mep$"):
        check_pam_service("mep", pam_folder)
    (pam_folder / "mep").chmod(0o644)
    pam_folder.chmod(0o777)
    with pytest.raises(ConfigError, match=f"chmod go-w {pam_folder}$"):
        check_pam_service("mep", pam_folder)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("account include nosuch\n", "line 1: includes 'nosuch'"),
        ("# a comment\nsession substack nosuch\n", "line 2: includes 'nosuch'"),
        ("@include nosuch\n", "line 1: includes 'nosuch'"),
        ("account \\\n  include nosuch\n", "line 1: includes 'nosuch'"),
        ("account include other\n", "line 1: includes 'nosuch'"),
    ],
)
def test_rules_that_are_included_and_missing(pam_folder: Path, rules: str, told: str) -> None:
    (pam_folder / "other").write_text("session include nosuch\naccount include mep\n")
    (pam_folder / "mep").write_text(rules)
    with pytest.raises(ConfigError, match=told):
        check_pam_service("mep", pam_folder)


def test_a_module_that_is_mandatory_and_missing(pam_folder: Path) -> None:
    fine = (
        "-session optional pam_nosuch.so\nsession optional pam_nosuch.so\n"
        "account [success=ok module_unknown=ignore default=bad] pam_nosuch.so\naccount required pam_permit.so\n"
    )
    (pam_folder / "mep").write_text(fine)
    check_pam_service("mep", pam_folder)
    (pam_folder / "mep").write_text(f"{fine}session required pam_nosuch.so\n")
    with pytest.raises(ConfigError, match=r"line 5: there is no module pam_nosuch\.so"):
        check_pam_service("mep", pam_folder)


def test_rules_that_include_each_other(pam_folder: Path) -> None:
    (pam_folder / "mep").write_text("account include other\n")
    (pam_folder / "other").write_text("account include mep\n")
    check_pam_service("mep", pam_folder)


@pytest.mark.parametrize(
    "rule",
    [
        "session optional pam_exec.so {hook}",
        "session optional pam_exec.so quiet {hook} argument",
        "-session [success=ok default=ignore] pam_exec.so [{hook}]",
        "session optional {hook}",
        "session optional pam_exec.so /usr/bin/env sh {hook}",
        "account required pam_listfile.so item=user sense=allow file={hook}",
        "@include other",
        "session substack other",
    ],
)
@pytest.mark.parametrize("place", ["itself", "its folder"])
def test_what_rules_have_executed_as_root(pam_folder: Path, rule: str, place: str, root: None) -> None:
    hook = pam_folder.parent / "hooks" / "hook"
    hook.parent.mkdir(mode=0o755)
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    (pam_folder / "other").write_text(f"session optional pam_exec.so {hook}\n")
    (pam_folder / "mep").write_text(f"{rule.format(hook=hook)}\n")
    check_pam_service("mep", pam_folder)
    (hook if place == "itself" else hook.parent).chmod(0o777)
    with pytest.raises(ConfigError, match=r"line 1: .*others than root may write") as caught:
        check_pam_service("mep", pam_folder)
    assert str(pam_folder) in str(caught.value)


def test_paths_that_differ_for_each_user(pam_folder: Path) -> None:
    (pam_folder / "mep").write_text("session optional pam_env.so envfile=/tmp/%u/x user_envfile=.x /tmp/@{y} $HOME\n")
    check_pam_service("mep", pam_folder)
