"""A server that many people share: whose runs are whose, what visitors may open, and how much they may start."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from lrc_core import visitors
from lrc_core.errors import LrcError, SettingsError, SharedServerError
from lrc_core.jobs import cache, manager, sharing
from lrc_core.kinds import KINDS
from lrc_core.models.source import find_source
from lrc_core.runs.records import Status
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec, ExportSpec, ModelRef, SpectraSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.serving import add_flags, rules_of
from lrc_core.visitors import Rules

ADA, BEN = "a" * 32, "b" * 32
Serving = Callable[..., None]


@pytest.fixture
def serving() -> Iterator[Serving]:
    """Serve a visitor by some rules; whoever runs the server again afterwards."""

    def serve(who: str | None, **rules: Any) -> None:
        visitors.share(Rules(**rules), lambda: who)

    yield serve
    visitors.share(Rules(), lambda: None)


def asked_by(serving: Serving, who: str | None, seed: int, **rules: Any) -> Run:
    """A run that somebody asked for, without a worker."""
    serving(who, **rules)
    run = RunStore().create(AllocateSpec(seed=seed))
    sharing.claim(run)
    return run


def ended(run: Run) -> None:
    run.write_status(Status(state="cancelled"))


def test_only_who_started_a_run_stops_and_deletes_it(serving: Serving) -> None:
    run, owners = asked_by(serving, ADA, 1), asked_by(serving, None, 2)
    serving(BEN)
    for other in (run, owners):
        for act in (manager.cancel, manager.delete):
            with pytest.raises(SharedServerError, match=other.id):
                act(other.id)
        assert (other.path / "spec.json").exists() and other.status().state == "queued"
    serving(ADA)
    assert manager.cancel(run.id).state == "cancelled"
    manager.delete(run.id)
    serving(None)
    assert manager.cancel(owners.id).state == "cancelled"


def test_an_admin_server_lets_visitors_tidy_up(serving: Serving) -> None:
    run = asked_by(serving, ADA, 1)
    serving(BEN, admin=True)
    assert manager.cancel(run.id).state == "cancelled"
    cache.clean_cache()
    serving(BEN)
    with pytest.raises(SharedServerError):
        cache.clean_cache()


def test_a_visitor_has_so_many_jobs_and_no_more(serving: Serving) -> None:
    first, second = (asked_by(serving, ADA, seed) for seed in (1, 2))
    serving(ADA, jobs=3)
    sharing.require_room_for_visitor(RunStore())
    serving(ADA, jobs=2)
    with pytest.raises(SharedServerError, match="2"):
        manager.submit(AllocateSpec(method="uniform", seed=9))
    serving(BEN, jobs=2)
    sharing.require_room_for_visitor(RunStore())
    ended(second)
    serving(ADA, jobs=2)
    sharing.require_room_for_visitor(RunStore())
    assert first.status().state == "queued"


def test_a_full_share_of_the_disk_takes_no_more_jobs(serving: Serving) -> None:
    asked_by(serving, None, 1)
    sharing._size.cache_clear()
    serving(ADA, disk_bytes=10)
    with pytest.raises(SharedServerError, match="10 bytes"):
        sharing.require_room_for_visitor(RunStore())
    serving(ADA, disk_bytes=10**12)
    sharing.require_room_for_visitor(RunStore())


def test_an_owner_file_that_somebody_wrote_by_hand_names_nobody(serving: Serving) -> None:
    run = asked_by(serving, ADA, 1)
    for content in (b"", b"\xff\xfe", b"<script>", b"A" * 32, b"../../x"):
        (run.path / sharing.OWNER).write_bytes(content)
        assert sharing.owner_of(run.path) == ""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder that is offered and one that is not, where the server was started beside them."""
    for name in ("offered", "secret"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "text.txt").write_text("words " * 50)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "offered", tmp_path / "secret"


def test_a_path_is_opened_only_where_it_is_offered(serving: Serving, folders: tuple[Path, Path]) -> None:
    offered, secret = folders
    os.symlink(secret, offered / "link")
    serving(ADA, models=(str(offered),))
    assert find_source(ModelRef(str(offered / "model"))).kind == "folder"
    spellings = (
        str(secret / "model"), f"{offered}/../secret/model", str(offered / "link" / "model"), "secret/model",
        "./secret/model", str(secret), f"{offered}x", str(secret / "is_not_there"), "~", "/", str(offered) + "/\0",
    )  # fmt: skip
    for name in spellings:
        with pytest.raises(LrcError):
            sharing.require_openable(AllocateSpec(model=ModelRef(source=name)))
        with pytest.raises(LrcError):
            sharing.require_openable(SpectraSpec(calibration=CalibrationSpec(texts=(f"{name}/text.txt",))))
    sharing.require_openable(SpectraSpec(calibration=CalibrationSpec(texts=(str(offered / "text.txt"), "wiki"))))
    serving(None)
    assert find_source(ModelRef(str(secret / "model"))).kind == "folder", "who runs the server is bound by nothing"


def test_a_refusal_does_not_tell_whether_a_path_is_there(serving: Serving, folders: tuple[Path, Path]) -> None:
    serving(ADA)
    messages = []
    for name in ("a_model", "is_not_there"):
        with pytest.raises(SharedServerError) as refused:
            find_source(ModelRef(str(folders[1] / name)))
        messages.append(str(refused.value).replace(name, "…"))
    assert messages[0] == messages[1]


def test_hub_ids_are_free_until_some_are_named(serving: Serving) -> None:
    serving(ADA)
    assert find_source(ModelRef("owner/name")).kind == "hub"
    serving(ADA, models=("owner/name",))
    assert find_source(ModelRef("owner/name")).kind == "hub" and find_source(ModelRef()).kind == "starter"
    with pytest.raises(SharedServerError, match="owner/other"):
        find_source(ModelRef("owner/other"))
    with pytest.raises(SharedServerError):
        sharing.require_openable(SpectraSpec(calibration=CalibrationSpec(texts=("owner/words",))))


def _with_place(record: Any, value: str) -> Iterator[tuple[str, Any]]:
    """The record with one of its places after the other naming ``value``."""
    hints = get_type_hints(type(record), include_extras=True)
    for field in fields(record):
        held = getattr(record, field.name)
        if is_dataclass(held):
            for name, changed in _with_place(held, value):
                yield f"{field.name}.{name}", replace(record, **{field.name: changed})
        elif sharing._is_place(hints[field.name]) and field.name != "revision":
            yield field.name, replace(record, **{field.name: value if isinstance(held, str) else (value,)})


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_field_of_any_job_opens_a_path_for_a_visitor(
    kind: str, serving: Serving, folders: tuple[Path, Path]
) -> None:
    tried = list(_with_place(KINDS[kind].base, str(folders[1])))
    assert tried
    serving(ADA)
    sharing.require_openable(KINDS[kind].base)
    for name, spec in tried:
        with pytest.raises(LrcError):
            sharing.require_openable(spec)
            pytest.fail(f"{name} was let through")


def test_exported_folders_stay_inside_the_run(serving: Serving, folders: tuple[Path, Path]) -> None:
    serving(ADA, models=(str(folders[0]),))
    with pytest.raises(SharedServerError):
        sharing.require_openable(ExportSpec(to=str(folders[0] / "new")))
    sharing.require_openable(ExportSpec())


def flags(*words: str) -> Rules | None:
    import argparse

    parser = argparse.ArgumentParser()
    add_flags(parser)
    return rules_of(parser.parse_args(list(words)))


def test_rules_are_stated_by_flags() -> None:
    assert flags() is None
    assert flags("--shared") == Rules()
    found = flags("--shared", "--models", "a/b", "/m", "--models", "c/d", "--jobs", "5", "--disk", "2.5", "--admin")
    assert found == Rules(("a/b", "/m", "c/d"), 5, 2_500_000_000, True)
    assert found.hub_ids == ("a/b", "c/d") and found.folders == ("/m",)
    for wrong in (["--admin"], ["--models", "a/b"], ["--shared", "--jobs", "0"], ["--shared", "--class"]):
        with pytest.raises(SettingsError):
            flags(*wrong)
