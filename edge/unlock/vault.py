"""Where templates of faces lie: one encrypted file, and a second one that makes old copies of it useless.

`people.vault` holds the templates. `guard` holds, encrypted as well, the secrets of the current vault and the
state of the lock-out. A vault is encrypted with a key made of the master key and its own secret, and every
change takes a new secret. So an older copy of the vault, put back by whomever, cannot be opened: not by this
program, and after a `forget` not even by somebody who has the master key, unless an old guard is left too.

A change writes the guard with the old and the new secret, then the vault, then the guard with the new secret
alone. Whenever the power fails in between, one of the two vaults is there whole, and its secret with it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import MaskedgeError, UsageError
from edge.files import write_atomically

MODES = ("bare", "masked")
"""How a face is seen; a template is of one of them."""

_VAULT, _GUARD, _LOCK, _SALT = "people.vault", "guard", "lock", "salt"
_VAULT_MAGIC, _GUARD_MAGIC = b"maskedge vault 1", b"maskedge guard 1"
_KEY_BYTES, _NONCE_BYTES, _ID_BYTES = 32, 12, 16
_PRIVATE = 0o600
_NAME_MAX = 64
# RFC 7914 names N = 2^14 for interactive logins of 2009; a Raspberry Pi 4 takes about a second for 2^16.
_SCRYPT = {"n": 2**16, "r": 8, "p": 1}


class VaultError(MaskedgeError):
    """The vault cannot be opened: wrong key, tampered, truncated, an old copy. Nothing was changed."""

    exit_code = 2


@dataclass(slots=True)
class Person:
    """Templates of one person.

    Attributes:
        name: as given when enrolled.
        templates: mode of `MODES` to d float32 of length 1; the masked one is half bare, see `enrol.between`.
        views: mode to the number of views behind that template.
        painted: whether the masked template is of views with a painted mask.
    """

    name: str
    templates: dict[str, np.ndarray]
    views: dict[str, int]
    painted: bool = False


@dataclass(slots=True)
class Lockout:
    """Failed attempts, as kept over restarts.

    Attributes:
        failures: in a row.
        until: wall-clock time, seconds since 1970, before which no attempt is taken.
        seen: latest wall-clock time at which the program was used: a clock before it was set back.
        boot: id of the boot in which `until_boot` counts.
        until_boot: the same limit on the clock of that boot (`time.clock_gettime(CLOCK_BOOTTIME)`).
    """

    failures: int = 0
    until: float = 0.0
    seen: float = 0.0
    boot: str = ""
    until_boot: float = 0.0


@dataclass(slots=True)
class _Guard:
    """What the guard holds: the secrets under which a vault may be encrypted, the current one first."""

    secrets: list[bytes]
    lockout: Lockout = field(default_factory=Lockout)


class Key:
    """The master key and where it came from.

    Args:
        secret: 32 bytes or more of key material, uniformly random or out of scrypt.
        source: for messages.
    """

    def __init__(self, secret: bytes, source: str) -> None:
        self._secret = secret
        self.source = source

    def derive(self, purpose: bytes, salt: bytes) -> bytes:
        """A key of 32 bytes for one purpose (HKDF-SHA256, RFC 5869)."""
        hashes, hkdf = _crypto().hashes, _crypto().HKDF
        made: bytes = hkdf(hashes.SHA256(), _KEY_BYTES, salt, purpose).derive(self._secret)
        return made


@dataclass(slots=True)
class _Crypto:
    aead: Any
    hashes: Any
    HKDF: Any
    Scrypt: Any
    InvalidTag: Any


_loaded: _Crypto | None = None


def _crypto() -> _Crypto:
    """The parts of `cryptography` in use, imported when first needed: no other command waits for them."""
    global _loaded
    if _loaded is None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives import hashes
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF
            from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
        except ImportError:
            raise UsageError(
                "templates of faces are kept encrypted, which needs the package cryptography",
                remedy="pip install 'maskedge[unlock]', or sudo apt install python3-cryptography",
            ) from None
        _loaded = _Crypto(AESGCM, hashes, HKDF, Scrypt, InvalidTag)
    return _loaded


def default_folder() -> Path:
    """Of the vault: the service's own, else the user's (XDG base directories)."""
    if state := os.environ.get("STATE_DIRECTORY"):
        return Path(state.split(":")[0]) / "vault"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "maskedge" / "vault"


def exists(folder: Path) -> bool:
    """Whether anybody has ever been enrolled in a folder."""
    return (folder / _GUARD).exists() or (folder / _VAULT).exists()


def default_key_file() -> Path:
    """Apart from the vault, so that a copy of one folder is not a copy of both."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "maskedge" / "vault.key"


def open_key(spec: str, folder: Path, *, passphrase: str | None = None, create: bool = False) -> Key:
    """The master key.

    Args:
        spec: `file` (the default file), `file:PATH`, `credential:NAME` (of systemd) or `passphrase`.
        folder: of the vault, which keeps the salt of a passphrase.
        passphrase: where `spec` is that.
        create: make a key file, or salt, that is not there.

    Raises:
        UsageError: spec is none of these, or there is no such key.
        VaultError: the key file may be read by others, or is damaged.
    """
    kind, _, rest = spec.partition(":")
    if kind == "file":
        return _key_of_file(Path(rest).expanduser() if rest else default_key_file(), create=create)
    if kind == "credential" and rest and "/" not in rest:
        where = os.environ.get("CREDENTIALS_DIRECTORY")
        if not where:
            raise UsageError(
                f"there is no credential {rest!r}: systemd has handed none to this process",
                remedy=f"LoadCredentialEncrypted={rest} in the unit, or use vault_key = file",
            )
        data = _read(Path(where) / rest, f"the credential {rest}")
        if len(data) < _KEY_BYTES:
            raise VaultError(
                f"the credential {rest} has {len(data)} bytes, 32 or more are needed",
                remedy="openssl rand 32 | systemd-creds encrypt - NAME",
            )
        return Key(data, f"credential {rest}")
    if kind == "passphrase" and not rest:
        if not passphrase:
            raise UsageError(
                "a passphrase is needed", remedy="type it, or give --passphrase-file FILE with it in a line"
            )
        salt = _salt(folder, create=create)
        made = _crypto().Scrypt(salt=salt, length=_KEY_BYTES, **_SCRYPT).derive(passphrase.encode())
        return Key(made, "passphrase")
    raise UsageError(
        f"unknown vault key {spec!r}", remedy="use file, file:PATH, credential:NAME or passphrase"
    )


def _key_of_file(path: Path, *, create: bool) -> Key:
    if not path.exists():
        if not create:
            raise UsageError(
                f"there is no key file {path}", remedy="name the right one with --vault-key, or enrol anew"
            )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Exclusive: two that start at once must not each take a key of their own.
        with contextlib.suppress(FileExistsError):
            write_atomically(path, secrets.token_bytes(_KEY_BYTES), mode=_PRIVATE, exclusive=True)
    info = path.stat()
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise VaultError(f"{path} can be read by other users", remedy=f"chmod 600 {path}")
    data = _read(path, "the key file")
    if len(data) != _KEY_BYTES:
        raise VaultError(
            f"{path} has {len(data)} bytes and a key has {_KEY_BYTES}", remedy="restore it from a backup"
        )
    return Key(data, str(path))


def _salt(folder: Path, *, create: bool) -> bytes:
    path = folder / _SALT
    if not path.exists():
        if not create or (folder / _GUARD).exists():
            raise VaultError(f"{path} is missing: the passphrase alone opens nothing", remedy="restore it")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            write_atomically(path, secrets.token_bytes(_ID_BYTES), mode=_PRIVATE, exclusive=True)
    return _read(path, "the salt")


class Vault:
    """Templates of enrolled people, encrypted at rest.

    Args:
        folder: of the vault; made when the first person is enrolled.
        key: the master key.
        model: name and version of the model whose embeddings are kept: others cannot be compared.
    """

    def __init__(self, folder: Path, key: Key, *, model: str) -> None:
        self.folder = folder
        self._key = key
        self._model = model

    @property
    def exists(self) -> bool:
        """Whether anything has ever been enrolled here."""
        return exists(self.folder)

    def people(self) -> dict[str, Person]:
        """Everybody, by name.

        Raises:
            VaultError: wrong key, tampered, truncated or replaced by an old copy; or of another model.
        """
        if not self.exists:
            return {}
        with self._locked():
            return self._load(self._guard())

    def add(self, person: Person) -> None:
        """Enrol somebody, in place of who had the name before.

        Raises:
            UsageError: the name is not one.
            VaultError: as in `people`; the vault stays as it was.
        """
        check_name(person.name)
        with self._locked():
            guard = self._guard() if self.exists else None
            people = self._load(guard) if guard else {}
            self._save(guard, people | {person.name: person})

    def forget(self, name: str) -> bool:
        """Remove somebody. What was written of them cannot be decrypted any more, here or in a copy.

        Returns:
            Whether there was such a person.

        Raises:
            VaultError: as in `people`.
        """
        if not self.exists:
            return False
        with self._locked():
            guard = self._guard()
            people = self._load(guard)
            if people.pop(name, None) is None:
                return False
            self._save(guard, people)
        return True

    @contextlib.contextmanager
    def lockout(self) -> Iterator[Lockout]:
        """The state of the lock-out, to be changed inside the `with`; written at its end.

        Raises:
            VaultError: the guard is missing, tampered or of another key: then no attempt may be taken.
        """
        with self._locked():
            guard = self._guard()
            before = repr(guard.lockout)
            yield guard.lockout
            if repr(guard.lockout) != before:
                self._write_guard(guard)

    # ------------------------------------------------------------------------------------------ files

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time reads or changes the files."""
        import fcntl

        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.folder, error) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _guard(self) -> _Guard:
        if not (self.folder / _GUARD).exists():
            raise VaultError(
                f"{self.folder / _GUARD} is missing: somebody removed it, or copied the vault alone",
                remedy="restore the whole folder, or remove it and enrol again",
            )
        data = _read(self.folder / _GUARD, "the guard")
        fields = _parse(self._open(data, _GUARD_MAGIC, b"", "the guard"))
        return _Guard([base64.b64decode(text) for text in fields["secrets"]], Lockout(**fields["lockout"]))

    def _write_guard(self, guard: _Guard) -> None:
        fields = {
            "secrets": [base64.b64encode(one).decode() for one in guard.secrets],
            "lockout": {name: getattr(guard.lockout, name) for name in Lockout.__slots__},
        }
        data = self._seal(json.dumps(fields).encode(), _GUARD_MAGIC, b"")
        write_atomically(self.folder / _GUARD, data, mode=_PRIVATE)

    def _load(self, guard: _Guard) -> dict[str, Person]:
        data = _read(self.folder / _VAULT, "the vault")
        head = len(_VAULT_MAGIC) + _NONCE_BYTES
        name = data[head : head + _ID_BYTES]
        secret = next((one for one in guard.secrets if _name(one) == name), None)
        if data.startswith(_VAULT_MAGIC) and secret is None:
            raise VaultError(
                f"{self.folder / _VAULT} is not the one written last: a copy of another time or place",
                remedy="put the right one back, or remove the folder and enrol again",
            )
        fields = _parse(self._open(data, _VAULT_MAGIC, secret or b"", "the vault"))
        if fields["model"] != self._model and fields["people"]:
            raise VaultError(
                f"the templates are of {fields['model']}, and this is {self._model}: they cannot be compared",
                remedy="enrol again (maskedge people lists who), or put the old models back",
            )
        return {one["name"]: _person(one) for one in fields["people"]}

    def _save(self, guard: _Guard | None, people: dict[str, Person]) -> None:
        guard = guard or _Guard([])
        fresh = secrets.token_bytes(_KEY_BYTES)
        fields = {"model": self._model, "people": [_fields(one) for one in people.values()]}
        data = self._seal(json.dumps(fields).encode(), _VAULT_MAGIC, fresh)
        try:
            guard.secrets = [fresh, *guard.secrets[:2]]
            self._write_guard(guard)
            write_atomically(self.folder / _VAULT, data, mode=_PRIVATE)
            guard.secrets = [fresh]
            self._write_guard(guard)
        except OSError as error:
            raise _unusable(self.folder, error) from None

    def _seal(self, text: bytes, magic: bytes, secret: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = magic + nonce + (_name(secret) if secret else b"")
        sealed: bytes = _crypto().aead(self._key.derive(magic, secret)).encrypt(nonce, text, head)
        return head + sealed

    def _open(self, data: bytes, magic: bytes, secret: bytes, what: str) -> bytes:
        length = len(magic) + _NONCE_BYTES + (_ID_BYTES if magic == _VAULT_MAGIC else 0)
        head, rest = data[:length], data[length:]
        if len(rest) >= 16 and head.startswith(magic):
            nonce = head[len(magic) : len(magic) + _NONCE_BYTES]
            with contextlib.suppress(_crypto().InvalidTag):
                text: bytes = _crypto().aead(self._key.derive(magic, secret)).decrypt(nonce, rest, head)
                return text
            reason = f"does not open with the key of {self._key.source}: it is another's, or was changed"
        else:
            reason = "is damaged or cut short"
        raise VaultError(
            f"{what} in {self.folder} {reason}",
            remedy="use the right key (--vault-key), or restore the folder; nothing was changed",
        )


def check_name(name: str) -> str:
    """A name as people have them, for messages and logs.

    Raises:
        UsageError: empty, too long, or with control characters.
    """
    if not name.strip() or name != name.strip() or len(name) > _NAME_MAX or not name.isprintable():
        raise UsageError(
            f"{name!r} cannot be a name", remedy=f"use 1 to {_NAME_MAX} letters, without spaces around them"
        )
    return name


def _name(secret: bytes) -> bytes:
    """What a secret is called in the header of the vault; says nothing about it."""
    import hashlib

    return hashlib.sha256(b"name" + secret).digest()[:_ID_BYTES]


def _fields(person: Person) -> dict[str, Any]:
    return {
        "name": person.name,
        "templates": {
            mode: base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
            for mode, vector in person.templates.items()
        },
        "views": person.views,
        "painted": person.painted,
    }


def _person(fields: dict[str, Any]) -> Person:
    templates = {
        mode: np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
        for mode, text in fields["templates"].items()
    }
    return Person(fields["name"], templates, fields["views"], fields["painted"])


def _parse(text: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(text)  # authentic: it was written by this program
    return parsed


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise VaultError(
            f"cannot read {what} {path} ({error.strerror})", remedy="check the file and your rights"
        ) from None


def _unusable(folder: Path, error: OSError) -> VaultError:
    return VaultError(
        f"cannot write the vault in {folder} ({error.strerror})", remedy="check its rights and free space"
    )
