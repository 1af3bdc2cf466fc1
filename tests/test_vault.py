"""The vault of templates: encrypted, written whole or not at all, and of no use in an old copy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.errors import UsageError
from edge.unlock import vault as module
from edge.unlock.vault import Key, Person, Vault, VaultError, check_name, open_key

pytest.importorskip("cryptography", reason="templates are encrypted with the package cryptography")

MODEL = "identity 1.0.0"


def key(fill: int = 1) -> Key:
    return Key(bytes([fill]) * 32, "a test")


def person(name: str, seed: int = 0) -> Person:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((2, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Person(name, {"bare": vectors[0], "masked": vectors[1]}, {"bare": 8, "masked": 5})


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    made = Vault(tmp_path / "vault", key(), model=MODEL)
    made.add(person("ada", 1))
    made.add(person("grace", 2))
    return made


def test_people_come_back_as_they_went_in(vault: Vault) -> None:
    found = vault.people()
    assert list(found) == ["ada", "grace"]
    for name, seed in (("ada", 1), ("grace", 2)):
        wanted = person(name, seed)
        assert found[name].views == wanted.views
        for mode, vector in wanted.templates.items():
            assert np.array_equal(found[name].templates[mode], vector)
            assert found[name].templates[mode].dtype == np.float32


def test_an_empty_place_has_nobody(tmp_path: Path) -> None:
    made = Vault(tmp_path / "none", key(), model=MODEL)
    assert not made.exists
    assert made.people() == {}
    assert made.forget("ada") is False
    assert not (tmp_path / "none").exists()


def test_nothing_of_it_can_be_read_without_the_key(vault: Vault) -> None:
    vector = person("ada", 1).templates["bare"].tobytes()
    for path in vault.folder.iterdir():
        content = path.read_bytes()
        assert b"ada" not in content
        assert vector[:16] not in content
        assert path.stat().st_mode & 0o077 == 0, path.name


def test_another_key_is_refused_and_changes_nothing(vault: Vault) -> None:
    before = {path.name: path.read_bytes() for path in vault.folder.iterdir()}
    other = Vault(vault.folder, key(2), model=MODEL)
    for use in (other.people, lambda: other.add(person("eve")), lambda: other.forget("ada")):
        with pytest.raises(VaultError, match="does not open with the key"):
            use()
    assert {path.name: path.read_bytes() for path in vault.folder.iterdir()} == before


@pytest.mark.parametrize("name", ["people.vault", "guard"])
def test_every_changed_byte_is_noticed(vault: Vault, name: str) -> None:
    path = vault.folder / name
    content = path.read_bytes()
    for place in [*range(0, 60, 7), len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(VaultError):
            vault.people()
    path.write_bytes(content)
    assert len(vault.people()) == 2


@pytest.mark.parametrize("name", ["people.vault", "guard"])
@pytest.mark.parametrize("length", [0, 1, 15, 30, 60, -1])
def test_a_file_that_is_cut_short_is_refused(vault: Vault, name: str, length: int) -> None:
    path = vault.folder / name
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(VaultError):
        vault.people()


@pytest.mark.parametrize("name", ["people.vault", "guard"])
def test_a_file_that_is_gone_is_refused(vault: Vault, name: str) -> None:
    (vault.folder / name).unlink()
    with pytest.raises(VaultError):
        vault.people()
    with pytest.raises(VaultError):
        vault.add(person("eve"))


def test_another_vault_of_the_same_key_cannot_take_its_place(vault: Vault, tmp_path: Path) -> None:
    """Somebody who may enrol elsewhere with the same key swaps the files."""
    other = Vault(tmp_path / "other", key(), model=MODEL)
    other.add(person("eve"))
    shutil.copy(other.folder / "people.vault", vault.folder / "people.vault")
    with pytest.raises(VaultError, match="not the one written last"):
        vault.people()


def test_the_forgotten_do_not_come_back_with_an_old_copy(vault: Vault, tmp_path: Path) -> None:
    old = (vault.folder / "people.vault").read_bytes()
    assert vault.forget("ada") is True
    assert list(vault.people()) == ["grace"]
    (vault.folder / "people.vault").write_bytes(old)
    with pytest.raises(VaultError, match="a copy of another time"):
        vault.people()


def test_what_was_forgotten_cannot_be_decrypted_with_the_master_key_and_the_new_guard(vault: Vault) -> None:
    old = (vault.folder / "people.vault").read_bytes()
    vault.forget("ada")
    head = 16 + 12 + 16
    guard = vault._guard()
    assert len(guard.secrets) == 1
    for secret in (*guard.secrets, b""):
        with pytest.raises(VaultError):
            vault._open(old[:28] + module._name(secret) + old[head:], b"maskedge vault 1", secret, "it")


def test_templates_of_another_model_are_not_compared(vault: Vault) -> None:
    with pytest.raises(VaultError, match=r"of identity 1\.0\.0, and this is identity 2\.0\.0"):
        Vault(vault.folder, key(), model="identity 2.0.0").people()


@pytest.mark.parametrize("step", range(3))
def test_a_power_cut_leaves_the_old_or_the_new_vault(
    vault: Vault, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change writes three files; the power fails before each of them."""

    class PowerCut(Exception):
        pass

    count = 0

    def write(path: Path, data: bytes, *, mode: int) -> None:
        nonlocal count
        if count == step:
            raise PowerCut
        count += 1
        real(path, data, mode=mode)

    real = module.write_atomically
    monkeypatch.setattr(module, "write_atomically", write)
    with pytest.raises(PowerCut):
        vault.add(person("eve", 3))
    monkeypatch.setattr(module, "write_atomically", real)
    names = ["ada", "grace"] if step < 2 else ["ada", "grace", "eve"]
    assert list(vault.people()) == names
    vault.add(person("mallory", 4))
    assert list(vault.people()) == [*names, "mallory"]
    assert len(vault._guard().secrets) == 1


def test_a_full_disk_loses_nothing(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in vault.folder.iterdir()}
    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(VaultError, match="No space left"):
        vault.add(person("eve"))
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in vault.folder.iterdir()} == before


def test_two_processes_do_not_lose_each_others_people(tmp_path: Path) -> None:
    folder = tmp_path / "vault"
    code = (
        "import sys, pathlib, numpy as np\n"
        "from edge.unlock.vault import *\n"
        f"vault = Vault(pathlib.Path({str(folder)!r}), Key(bytes([1]) * 32, 'a test'), model={MODEL!r})\n"
        "for i in range(5):\n"
        "    vault.add(Person(f'{sys.argv[1]}{i}', {'bare': np.ones(4, np.float32) / 2}, {'bare': 3}))\n"
    )
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root)}
    started = [subprocess.Popen([sys.executable, "-c", code, name], env=environment) for name in "ab"]
    assert [one.wait(60) for one in started] == [0, 0]
    found = Vault(folder, key(), model=MODEL).people()
    assert sorted(found) == [f"{name}{i}" for name in "ab" for i in range(5)]


# --------------------------------------------------------------------------------------------- the key


def test_a_key_file_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "config" / "vault.key"
    with pytest.raises(UsageError, match="no key file"):
        open_key(f"file:{path}", tmp_path)
    first = open_key(f"file:{path}", tmp_path, create=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_bytes()) == 32
    again = open_key(f"file:{path}", tmp_path, create=True)
    assert first.derive(b"a", b"b") == again.derive(b"a", b"b") != first.derive(b"c", b"b")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(bytes(32))
    path.chmod(0o640)
    with pytest.raises(VaultError, match="chmod 600"):
        open_key(f"file:{path}", tmp_path)
    path.chmod(0o600)
    path.write_bytes(bytes(31))
    with pytest.raises(VaultError, match="31 bytes"):
        open_key(f"file:{path}", tmp_path)


def test_a_credential_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="handed none"):
        open_key("credential:maskedge", tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "maskedge").write_bytes(bytes(range(32)))
    assert open_key("credential:maskedge", tmp_path).source == "credential maskedge"
    (tmp_path / "maskedge").write_bytes(b"short")
    with pytest.raises(VaultError, match="32 or more"):
        open_key("credential:maskedge", tmp_path)
    with pytest.raises(UsageError, match="unknown vault key"):
        open_key("credential:../maskedge", tmp_path)


def test_a_passphrase(tmp_path: Path) -> None:
    folder = tmp_path / "vault"
    right = open_key("passphrase", folder, passphrase="open sesame", create=True)
    Vault(folder, right, model=MODEL).add(person("ada"))
    again = Vault(folder, open_key("passphrase", folder, passphrase="open sesame"), model=MODEL)
    assert list(again.people()) == ["ada"]
    wrong = Vault(folder, open_key("passphrase", folder, passphrase="open barley"), model=MODEL)
    with pytest.raises(VaultError, match="does not open"):
        wrong.people()
    with pytest.raises(UsageError, match="passphrase is needed"):
        open_key("passphrase", folder)
    (folder / "salt").unlink()
    with pytest.raises(VaultError, match="missing"):
        open_key("passphrase", folder, passphrase="open sesame", create=True)


@pytest.mark.parametrize("spec", ["", "files", "credential:", "passphrase:x", "/some/path"])
def test_no_such_kind_of_key(spec: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown vault key"):
        open_key(spec, tmp_path, passphrase="x")


@pytest.mark.parametrize("name", ["", " ", " ada", "ada\n", "a" * 65, "\x1b[31mada"])
def test_names_that_are_none(name: str, vault: Vault) -> None:
    with pytest.raises(UsageError, match="cannot be a name"):
        check_name(name)
    with pytest.raises(UsageError):
        vault.add(person(name))


def test_the_files_hold_no_pickle(vault: Vault) -> None:
    guard = vault._guard()
    data = (vault.folder / "people.vault").read_bytes()
    text = vault._open(data, b"maskedge vault 1", guard.secrets[0], "it")
    assert [one["name"] for one in json.loads(text)["people"]] == ["ada", "grace"]
