"""`maskedge enrol`, `people`, `forget`, `verify`, `unlock` and `embed`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edge import assembly
from edge.config import FARS, LIVENESS, Config, load_config, options_of
from edge.errors import InputError, NobodyEnrolledError, SinkError, UsageError
from edge.unlock import policy
from edge.unlock.vault import MODES, Vault, check_name, default_folder, exists, open_key

if TYPE_CHECKING:
    from edge.sinks import Sink
    from edge.tasks.identity import Embedder
    from edge.unlock.gate import Decision, Gate
    from edge.unlock.names import Namer

log = logging.getLogger(__name__)


def _folder(config: Config) -> Path:
    return Path(config.vault).expanduser() if config.vault else default_folder()


def _vault(config: Config, args: argparse.Namespace, *, create: bool = False) -> Vault:
    """The vault of the options.

    Raises:
        NobodyEnrolledError: there is none, and it is not to be made.
        UsageError: no such key.
        VaultError: the key is damaged or readable by others.
        ModelError: there is no identity model.
    """
    folder = _folder(config)
    entry = assembly.identity_entry(config)
    there = exists(folder)
    if not create and not there:
        raise NobodyEnrolledError("nobody is enrolled", remedy="maskedge enrol NAME")
    passphrase = None
    if config.vault_key == "passphrase":
        passphrase = _passphrase(args.passphrase_file, twice=not there)
    key = open_key(config.vault_key, folder, passphrase=passphrase, create=create)
    return Vault(folder, key, model=f"{entry.name} {entry.version}")


def open_namer(config: Config) -> tuple[Namer, Embedder]:
    """What names people in the live view, and its model.

    Raises:
        NobodyEnrolledError, UsageError, VaultError, ModelError: as when unlocking.
    """
    from edge.unlock.names import Namer

    known = _vault(config, argparse.Namespace(passphrase_file=None)).people()
    limits = policy.Limits.of(assembly.identity_entry(config), config.unlock_far)
    embedder = assembly.embedder(config)
    gallery = policy.Gallery(known.values(), limits)
    return Namer(embedder, gallery, every_s=config.identity_seconds), embedder


def _passphrase(path: str | None, *, twice: bool) -> str:
    if path is not None:
        try:
            return Path(path).read_text().partition("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {path} ({error})", remedy="check --passphrase-file") from None
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("nobody is there to type the passphrase", remedy="give --passphrase-file FILE")
    import getpass

    given = getpass.getpass("passphrase of the templates: ")
    if twice and getpass.getpass("once more: ") != given:
        raise UsageError("the two differ", remedy="try again")
    return given


# ------------------------------------------------------------------------------------------------- loop


_Made = TypeVar("_Made", bound="Sink")


def _run(config: Config, make: Callable[[bool], _Made], *, seconds: float | None) -> tuple[_Made, str]:
    """The camera loop with one sink, which `make` makes given whether the source is live.

    Returns:
        The sink, and how the loop ended, see `Pipeline`.
    """
    from edge.pipeline import Pipeline
    from edge.tracking import Tracker

    source = assembly.source(config)
    with source:
        detector = assembly.detector(config)
        tracker = Tracker(iou=config.track_iou, max_age_s=config.track_seconds)
        sink = make(source.live)
        pipeline = Pipeline(source, detector, [sink], tracker=tracker, seconds=seconds)
        return sink, pipeline.run(handle_signals=True).ended


def _say(text: str) -> None:
    if sys.stderr is not None:
        wipe = "\r\x1b[K" if sys.stderr.isatty() else ""
        print(f"{wipe}{text}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------ enrol


def enrol(args: argparse.Namespace) -> int:
    """`maskedge enrol NAME`."""
    from edge.unlock.enrol import Enroller

    config = load_config(args.config, options_of(args))
    name = check_name(args.name)
    vault = _vault(config, args, create=True)
    people = vault.people()
    if name in people and not args.replace:
        raise UsageError(f"{name} is enrolled already", remedy="--replace takes the new views instead")
    limits = policy.Limits.of(assembly.identity_entry(config), FARS[0])
    embedder = assembly.embedder(config)
    estimator = assembly.estimator(replace(config, tasks=("mask",)))
    assert estimator is not None  # since mask is asked for

    def progress(mode: str, count: int, wanted: int) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            print(f"\r{mode}: {count} of {wanted} views\x1b[K", end="", file=sys.stderr, flush=True)

    def make(live: bool) -> Enroller:
        return Enroller(
            embedder,
            estimator,
            live=live,
            wanted=args.views,
            masked=not args.no_masked,
            say=_say if live else None,
            progress=progress,
        )

    taker, ended = _run(config, make, seconds=args.seconds)
    if sys.stderr is not None and sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if ended == "SIGINT":
        return 130
    person = taker.person(name, least=limits.scores["bare"])
    others = policy.Gallery([one for one in people.values() if one.name != name], limits)
    for mode in MODES:
        match = others.search(person.templates[mode]) if mode in person.templates else None
        if match and match.margin > 0:
            _say(f"maskedge: warning: {name} looks like {match.name}: one may unlock for the other")
            break
    vault.add(person)
    _audit(config, {"event": "enrol", "name": name, "views": person.views})
    views = ", ".join(
        f"{count} {'painted ' if mode == 'masked' and person.painted else ''}{mode}"
        for mode, count in person.views.items()
    )
    print(f"{name} is enrolled, from {views} views")
    for reason, count in taker.refused.items():
        log.info("left out %d times: %s", count, reason)
    return 0


def people(args: argparse.Namespace) -> int:
    """`maskedge people`."""
    config = load_config(args.config, options_of(args))
    known = _vault(config, args).people()
    if args.json:
        import json

        rows = [{"name": one.name, "views": one.views, "painted": one.painted} for one in known.values()]
        print(json.dumps({"version": 1, "people": rows}))
    elif known:
        for one in sorted(known.values(), key=lambda person: person.name):
            views = ", ".join(f"{count} {mode}" for mode, count in one.views.items())
            print(f"{one.name}: {views} views{' (masks painted)' if one.painted else ''}")
    if not known:
        raise NobodyEnrolledError("nobody is enrolled", remedy="maskedge enrol NAME")
    return 0


def forget(args: argparse.Namespace) -> int:
    """`maskedge forget NAME`."""
    config = load_config(args.config, options_of(args))
    vault = _vault(config, args)
    if not vault.forget(args.name):
        print(f"maskedge: nobody called {args.name} is enrolled", file=sys.stderr)
        return 1
    _audit(config, {"event": "forget", "name": args.name})
    print(f"{args.name} is forgotten: older copies of the vault cannot be opened any more")
    return 0


# ----------------------------------------------------------------------------------------------- unlock


def verify(args: argparse.Namespace) -> int:
    """`maskedge verify NAME`."""
    return _attempt(args, args.name)


def unlock(args: argparse.Namespace) -> int:
    """`maskedge unlock`."""
    return _attempt(args, None)


def _attempt(args: argparse.Namespace, wanted: str | None) -> int:
    from edge.unlock import liveness
    from edge.unlock.gate import Gate

    config = load_config(args.config, options_of(args))
    limits = policy.Limits.of(assembly.identity_entry(config), config.unlock_far)
    vault = _vault(config, args)
    known = vault.people()
    if not known or (wanted is not None and wanted not in known):
        what = "nobody" if not known else f"nobody called {wanted}"
        raise NobodyEnrolledError(f"{what} is enrolled", remedy="maskedge enrol NAME; maskedge people")
    with vault.lockout() as state:
        left = policy.remaining_s(state)
    if left > 0:
        _audit(config, {"event": "locked out", "seconds_left": round(left)})
        print(f"locked for another {left:.0f} s after {state.failures} failed attempts")
        return 1
    gallery = policy.Gallery([one for one in known.values() if wanted in (None, one.name)], limits)
    embedder = assembly.embedder(config)

    def failed_unless_cleared() -> None:
        # Before the first view is compared: to end the program early is no way round the lock-out.
        with vault.lockout() as state:
            policy.count_failure(state)

    def make(live: bool) -> Gate:
        names = config.liveness
        if names is None:
            names = LIVENESS if live else ()
        return Gate(
            embedder,
            gallery,
            checks=lambda: liveness.checks(names, turns=config.liveness_turns),
            needed=config.unlock_views,
            seconds=config.unlock_seconds,
            on_attempt=failed_unless_cleared,
            say=_say,
            keep_picture=config.audit_pictures,
        )

    # A live source that stalls must not hold the door for ever: the loop ends a little after the attempt.
    gate, ended = _run(config, make, seconds=config.unlock_seconds + 30)
    decision = gate.decision
    assert decision is not None  # the loop has closed the gate
    if ended == "SIGINT":
        return 130
    if decision.name is not None:
        with vault.lockout() as state:
            policy.clear(state)
    _audit(config, _record(decision, wanted, config, limits), gate.picture)
    if decision.name is None:
        print(f"refused: {decision.reason}")
        return 1
    print(f"{'verified' if wanted else 'unlocked'}: {decision.name} ({decision.seconds:.1f} s)")
    return _execute(args.exec, decision.name) if getattr(args, "exec", None) else 0


def _record(decision: Decision, wanted: str | None, config: Config, limits: policy.Limits) -> dict[str, Any]:
    return {
        "event": "verify" if wanted else "unlock",
        "wanted": wanted,
        "accepted": decision.name,
        "reason": decision.reason or None,
        "score": round(decision.score, 3),
        "views": decision.views,
        "seconds": round(decision.seconds, 2),
        "far": limits.far,
        "source": config.source if "://" not in config.source else config.source.split("://")[0],
    }


def _audit(config: Config, record: dict[str, Any], picture: np.ndarray | None = None) -> None:
    """One line; what cannot be written is said, and changes no decision."""
    from edge.sinks.jsonl import Lines

    path = Path(config.audit).expanduser() if config.audit else _folder(config) / "audit.jsonl"
    now = datetime.now(UTC)
    record = {"time": now.isoformat(timespec="seconds")} | record
    try:
        if picture is not None:
            import cv2

            name = f"{now:%Y%m%dT%H%M%S}-{time.monotonic_ns() % 10**6:06d}.jpg"
            folder = path.parent / f"{path.stem}-pictures"
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            done, data = cv2.imencode(".jpg", picture)
            if done:
                with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(data.tobytes())
                record["picture"] = name
        lines = Lines(str(path), max_bytes=10_000_000, backups=3, mode=0o600)
        try:
            lines.append(record)
        finally:
            lines.close()
    except (OSError, SinkError) as error:
        log.warning("no audit: %s", error)


def _execute(command: str, name: str) -> int:
    """Run the user's command, without a shell's reading of the name; its exit code is ours if it fails."""
    environment = os.environ | {"MASKEDGE_NAME": name}
    try:
        code = subprocess.run(["/bin/sh", "-c", command], env=environment).returncode
    except OSError as error:
        raise UsageError(f"cannot run {command!r} ({error.strerror})", remedy="check --exec") from None
    if code:
        log.warning("unlocked, but %r ended with exit code %d", command, code)
        return 1
    return 0


# ------------------------------------------------------------------------------------------------ embed


def embed(args: argparse.Namespace) -> int:
    """`maskedge embed PATHS --out FILE.npz`."""
    from edge.camera import find_pictures, read_image

    config = load_config(
        overrides={name: getattr(args, name) for name in ("models", "precision", "threads", "score")}
    )
    detector, embedder = assembly.detector(config), assembly.embedder(config)
    length = next(one.shape[-1] for one in embedder.model.outputs if one.shape[-1] > 1)
    paths = [path for given in args.paths for path in find_pictures([given])]
    rows = np.zeros((len(paths), length), np.float32)
    failed = without = 0
    for number, path in enumerate(_counted(paths)):
        try:
            image = read_image(path)
        except InputError as error:
            failed += 1
            print(error, file=sys.stderr)
            continue
        faces = sorted(detector.detect(image), key=lambda face: -face.box[2] * face.box[3])
        try:
            rows[number] = embedder.embed(image, faces[0].landmarks).vector
        except (IndexError, ValueError):
            without += 1
    out = Path(args.out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out, "wb") as file:
            np.savez(file, files=np.array([str(path) for path in paths]), embeddings=rows)
    except OSError as error:
        raise SinkError(
            f"cannot write {out} ({error.strerror})", remedy="check the folder, its rights and free space"
        ) from None
    print(f"{len(paths) - failed - without} of {len(paths)} pictures with a face -> {out}", file=sys.stderr)
    return 1 if failed else 0


def _counted(paths: list[str]) -> Iterator[str]:
    """The paths, with a count on a terminal."""
    shown = sys.stderr is not None and sys.stderr.isatty() and len(paths) > 3
    for number, path in enumerate(paths, 1):
        if shown:
            print(f"\r{number} of {len(paths)} pictures\x1b[K", end="", file=sys.stderr, flush=True)
        yield path
    if shown:
        with contextlib.suppress(OSError):
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
