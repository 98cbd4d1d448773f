"""Every file of a profile, spoiled in every way: one clear problem that names the file and the remedy, and no hang.

All of it in this process, by what the commands call; a sample by the real program.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.manager import MEP
from mep.profile.errors import ConfigError
from mep.reader import client_credentials, loader

UUID = "ee9d42e2-85b1-487f-a350-9712bb321d5f"
NOBODY = 65534


@dataclass(frozen=True)
class Kind:
    """A file of a profile: another type in its place, what it is cut off at, and what names the remedy for both."""

    path: str
    wrong_type: str
    cut_at: str
    remedy: str


FILES = {
    "config": Kind("prod/config.yaml", "- a\n", "_path", "keys and values|valid YAML|identity_mapping_config_path"),
    "mapping": Kind("maps/mapping.json", "5", '"source"', "JSON|list of documents"),
    "template": Kind("prod/user_config_template.yaml.j2", "- a\n", "ERS }}", "line 3|engine"),
    "schema": Kind("prod/user_config_schema.json", "[]", "ject", "JSON"),
    "environment": Kind("prod/user_environment.yaml", "- a\n", "BER", "NAME: value|valid YAML"),
    "endpoint": Kind("prod/endpoint.json", "[]", "-a350", "expected .* delete it"),
    "client": Kind("secrets/client.yaml", "- a\n", "ret:", "expected .*client_id"),
}


@pytest.fixture
def site(tmp_path: Path, profile_directory: Path) -> Path:
    """A folder with a whole profile `prod`; its identity mapping and client credentials have folders of their own."""
    for folder in ("maps", "secrets"):
        (tmp_path / folder).mkdir(mode=0o755)
    (profile_directory / "mapping.json").rename(tmp_path / FILES["mapping"].path)
    (tmp_path / FILES["client"].path).write_text(f"client_id: {UUID}\nclient_secret: s\n")
    (tmp_path / FILES["client"].path).chmod(0o600)
    (profile_directory / "endpoint.json").write_text(json.dumps({"endpoint_id": UUID}))
    (profile_directory / "config.yaml").write_text(
        f"client_credentials_path: {tmp_path / FILES['client'].path}\n"
        f"identity_mapping_config_path: {tmp_path / FILES['mapping'].path}\n"
    )
    return tmp_path


def replaced(make: Callable[[Path], object]) -> Callable[[Path, Kind], None]:
    """Deletes the file, and has something else made in its place."""

    def spoil(path: Path, kind: Kind) -> None:
        path.unlink()
        make(path)

    return spoil


def rewritten(make: Callable[[str, Kind], bytes]) -> Callable[[Path, Kind], None]:
    """Gives the file another content; its mode and owner stay."""

    def spoil(path: Path, kind: Kind) -> None:
        path.write_bytes(make(path.read_text(), kind))

    return spoil


def cut(text: str, kind: Kind) -> bytes:
    return text[: text.index(kind.cut_at)].encode()


FAULTS: dict[str, Callable[[Path, Kind], object]] = {
    "missing": replaced(lambda path: None),
    "empty": rewritten(lambda text, kind: b""),
    "not UTF-8": rewritten(lambda text, kind: text.encode() + b"\xff"),
    "wrong type": rewritten(lambda text, kind: kind.wrong_type.encode()),
    "cut off": rewritten(cut),
    "folder": replaced(lambda path: path.mkdir(mode=0o700)),
    "fifo": replaced(lambda path: os.mkfifo(path, 0o600)),
    "link to nothing": replaced(lambda path: path.symlink_to("nosuch")),
    "link to itself": replaced(lambda path: path.symlink_to(path.name)),
    "group may write": lambda path, kind: path.chmod(0o620),
    "others may write": lambda path, kind: path.chmod(0o602),
    "somebody else's": lambda path, kind: os.chown(path, NOBODY, NOBODY),
    "others may write to its folder": lambda path, kind: path.parent.chmod(0o777),
}

REMEDIES = {
    "missing": "no such file; .*(configure|make|correct|restore)",
    "link to nothing": "no such file; .*(configure|make|correct|restore)",
    "not UTF-8": "UTF-8",
    "folder": "put a file there",
    "fifo": "put a file there",
    "link to itself": "symbolic links",
    "group may write": "chmod (go-w|600) ",
    "others may write": "chmod (go-w|600) ",
    "somebody else's": "chown root ",
    "others may write to its folder": "chmod go-w ",
}
"""What the text must have; for the other faults it depends on the file (`Kind.remedy`)."""

FINE = {
    ("schema", "missing"): "user options are not checked",
    ("environment", "missing"): "there are no such variables",
    ("environment", "empty"): "there are no such variables",
    ("endpoint", "missing"): "there has been no registration yet",
    ("template", "wrong type"): "any text is a template; what it renders to is looked at when it is tried",
}
"""What is no fault, and why."""


def cases(*chosen: tuple[str, str]) -> list[Any]:
    """Faults as parameters of a test: all of them, or the chosen ones; those that are fine are not among them."""
    every = [(file, fault) for file in FILES for fault in FAULTS if (file, fault) not in FINE]
    return [pytest.param(file, fault, id=f"{file}: {fault}") for file, fault in chosen or every]


def spoil(site: Path, file: str, fault: str) -> Path:
    path = site / FILES[file].path
    FAULTS[fault](path, FILES[file])
    return path


def remedy(file: str, fault: str) -> str:
    if (file, fault) == ("config", "missing"):  # as an empty one: every key has its default
        return "set identity_mapping_config_path"
    return REMEDIES.get(fault, FILES[file].remedy)


def problems(site: Path, file: str) -> list[str]:
    """What is found wrong, line by line."""
    found, findings = loader.examine(site / "prod")
    texts = [finding.problem for finding in findings if finding.problem is not None]
    if found is None:
        with pytest.raises(ConfigError) as caught:
            loader.load(site / "prod")
        assert str(caught.value) == "\n".join(texts)
    elif file == "client":
        assert not texts
        try:
            client_credentials.find(found.config.client_credentials_path)
        except ConfigError as e:
            texts = [str(e)]
    return "\n".join(texts).splitlines()


def test_the_whole_profile_is_fine(site: Path) -> None:
    for file in FILES:
        assert problems(site, file) == []


@pytest.mark.parametrize(("file", "fault"), FINE, ids=": ".join)
def test_what_is_no_fault(site: Path, file: str, fault: str) -> None:
    spoil(site, file, fault)
    assert problems(site, file) == []


@pytest.mark.parametrize(("file", "fault"), cases())
def test_each_fault_is_one_problem_that_names_file_and_remedy(
    site: Path, root: None, no_hang: None, file: str, fault: str
) -> None:
    path = spoil(site, file, fault)
    texts = problems(site, file)
    assert len(texts) == 1, texts
    if fault != "others may write to its folder":
        assert texts[0].startswith(f"{path}: ")
    assert str(path.parent) in texts[0]
    assert re.search(remedy(file, fault), texts[0]), texts


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The real program; nothing outside of `site` is touched."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "MEP_CONFIG_DIR": str(site),
        "MEP_RUN_DIR": str(site / "run"),
    }
    return subprocess.run([MEP, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=20)


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines that say what is wrong; the exit status says that something is."""
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == os.EX_CONFIG, done.stdout + done.stderr
    assert done.stderr.startswith("mep: ")
    lines = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    return lines or done.stderr.removeprefix("mep: ").splitlines()


SAMPLE = (
    ("config", "missing"),
    ("config", "empty"),
    ("config", "not UTF-8"),
    ("config", "fifo"),
    ("mapping", "wrong type"),
    ("mapping", "link to itself"),
    ("template", "missing"),
    ("template", "folder"),
    ("schema", "cut off"),
    ("schema", "link to nothing"),
    ("environment", "somebody else's"),
    ("environment", "wrong type"),
    ("endpoint", "empty"),
    ("endpoint", "group may write"),
    ("mapping", "others may write to its folder"),
)


@pytest.mark.parametrize(("file", "fault"), cases(*SAMPLE))
def test_check_tells_it(site: Path, root: None, file: str, fault: str) -> None:
    path = spoil(site, file, fault)
    lines = told(run(site, "check", "--files", "prod"))
    assert len(lines) == 1, lines
    assert str(path) in lines[0]
    assert re.search(remedy(file, fault), lines[0])


OF_START = (*((file, fault) for file, fault in SAMPLE[1::2]), ("client", "cut off"), ("client", "fifo"))


@pytest.mark.parametrize(("file", "fault"), cases(*OF_START))
def test_start_tells_it_and_leaves_nothing(site: Path, root: None, file: str, fault: str) -> None:
    path = spoil(site, file, fault)
    lines = told(run(site, "start", "prod"))
    assert len(lines) == 1, lines
    assert str(path) in lines[0]
    assert re.search(remedy(file, fault), lines[0])
    assert {path.name for path in (site / "run" / "prod").iterdir()} <= {"manager.pid", "last.json"}, "why it ended"


def test_the_program_finds_nothing_wrong_where_nothing_is(site: Path, root: None) -> None:
    for file, fault in dict(FINE.keys()).items():
        if file != "template":
            spoil(site, file, fault)
    done = run(site, "check", "--files", "prod")
    assert (done.returncode, done.stderr) == (0, "")
    assert "FAIL" not in done.stdout


def test_a_template_that_renders_to_no_configuration_is_refused(site: Path, root: None) -> None:
    spoil(site, "template", "wrong type")
    for command in (("check", "--files", "prod"), ("start", "prod")):
        (line,) = told(run(site, *command))
        assert "user_config_template.yaml.j2: does not render to a configuration with an `engine`" in line


def test_all_faults_are_told_at_once(site: Path, root: None) -> None:
    spoiled = [spoil(site, file, "not UTF-8") for file in ("mapping", "template", "schema", "environment", "endpoint")]
    lines = "\n".join(problems(site, "config"))
    for path in spoiled:
        assert lines.count(f"{path}: ") == 1


def test_a_broken_configuration_is_not_blamed_on_others(site: Path) -> None:
    template = site / FILES["template"].path
    template.rename(site / "maps" / "template.j2")
    config = site / FILES["config"].path
    config.write_text(f"{config.read_text()}user_config_template_path: {site}/maps/template.j2\ndisplay_nam: x\n")
    assert [line.split(": ")[0] for line in problems(site, "config")] == [str(config)]


NUL, DEEP = '"/a\\0b"', "[" * 20_000
TRAPS = {
    "a date that is none": ("config", "display_name: 2024-13-45\n", "display_name|YAML"),
    "a number that is none": ("config", "display_name: !!int x\n", "display_name|YAML"),
    "a flag that is none": ("config", "public: !!bool x\n", "public|YAML"),
    "a time that is none": ("config", "display_name: !!timestamp x\n", "display_name|YAML"),
    "digits without end": ("config", f"amqp_port: {'9' * 5000}\n", "amqp_port|YAML"),
    "nested without end": ("config", f"pam: {DEEP}", "pam|YAML|nested"),
    "a path with a NUL": ("config", f"user_config_template_path: {NUL}\n", "path"),
    "a schema's path with a NUL": ("config", f"user_config_schema_path: {NUL}\n", "path"),
    "a program with a NUL": ("config", f"uep_command: [{NUL}]\n", "uep_command"),
    "a path with a surrogate": ("config", 'user_config_template_path: "/\\ud83d"\n', "path"),
    "a variable's date that is none": ("environment", "A: 2024-13-45\n", "A|YAML"),
    "variables nested without end": ("environment", f"A: {DEEP}", "A|YAML|nested"),
    "variables are a flag": ("environment", "false\n", "NAME: value"),
    "variables are an empty list": ("environment", "[]\n", "NAME: value"),
    "a schema's dialect is a list": ("schema", '{"$schema": []}', "schema"),
    "a schema's dialect is a number": ("schema", '{"$schema": 5}', "schema"),
    "a schema's dialect is no URL": ("schema", '{"$schema": "http://[["}', "schema"),
    "a schema nested without end": ("schema", "[" * 200_000, "JSON|nested"),
    "an id nested without end": ("endpoint", "[" * 200_000, "delete it"),
    "a broker that is none": ("endpoint", f'{{"endpoint_id": "{UUID}", "broker": "amqps://[h:abc"}}', "delete it"),
    "a template with digits without end": ("template", f"a: {{{{ {'9' * 5000} }}}}", "line 1|digits"),
    "a template nested without end": ("template", f"a: {{{{ {'(' * 5000}1{')' * 5000} }}}}", "nested|line 1"),
    "credentials that are a date": ("client", f"client_id: {UUID}\nclient_secret: 2024-13-45\n", "client_secret"),
    "no secret": ("client", f"client_id: {UUID}\nclient_secret:\n", "client_secret"),
    "a list of secrets": ("client", f"client_id: {UUID}\nclient_secret: [a]\n", "client_secret"),
    "an id that is none": ("client", "client_id: me\nclient_secret: s\n", "UUID"),
}


@pytest.mark.parametrize(("file", "text", "names"), TRAPS.values(), ids=TRAPS)
def test_a_content_that_trips_a_parser(site: Path, no_hang: None, file: str, text: str, names: str) -> None:
    path = site / FILES[file].path
    path.write_text(path.read_text() + text if file == "config" else text)
    texts = problems(site, file)
    assert len(texts) == 1, texts
    assert re.search(names, texts[0])
    assert "\0" not in texts[0]
