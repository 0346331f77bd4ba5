"""Run folders and cleaned shards in an object store: a real S3 server on loopback, with its faults."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import command, environment, jpegs, one_line, run, tar_bytes
from PIL import Image
from s3 import S3, boto, serving

import dedupkit as dk
from dedupkit.errors import DedupkitError
from dedupkit.manifest import export
from dedupkit.manifest.export import apply
from dedupkit.runfolder import RunFolder
from dedupkit.sources import find_shards
from dedupkit.sources.reread import Originals
from dedupkit.sources.sample import PassedOver
from dedupkit.store import Bucket, Lease, lease, read_ranges, remote
from dedupkit.store.bucket import State
from dedupkit.workflows.audit import audit
from dedupkit.workflows.metadata import clean_lists

pytest.importorskip("moto", reason="could not import moto")
pytest.importorskip("s3fs", reason="could not import s3fs")


@pytest.fixture(scope="module")
def running() -> Iterator[S3]:
    with serving() as server:
        server.make("bucket")
        yield server


@pytest.fixture
def server(running: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The server without faults, and a scratch folder of this test's own."""
    monkeypatch.setenv("DEDUPKIT_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(remote, "PAUSES", (0.01,) * 8)
    monkeypatch.setattr(lease, "EVERY", 0.2)
    monkeypatch.setattr(lease, "PATIENCE", 1.0)
    running.calm()
    yield running
    running.calm()


@pytest.fixture(scope="module")
def local(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run and its cleaned shards on a local disk."""
    out = tmp_path_factory.mktemp("local")
    run(shards, out / "run")
    apply(out / "run", out / "clean", workers=1)
    return out


RESULTS = ("manifest.parquet", "groups.parquet", "samples/00003.parquet", "edges/pdq/00000.parquet")


def same(server: S3, url: str, local: Path, names: tuple[str, ...] = RESULTS) -> None:
    """The results in the store are those on the disk, byte for byte."""
    there = server.objects(url)
    for name in names:
        assert there[name] == (local / name).read_bytes(), name


def cleaned(local: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in (local / "clean").iterdir() if path.is_file()))


def test_a_run_and_its_cleaned_shards_in_a_bucket_are_those_of_a_local_disk(
    server: S3, shards: Path, local: Path, tmp_path: Path
) -> None:
    out, clean = "s3://bucket/first/run", "s3://bucket/first/clean"
    finished = run(shards, out, workers=2)
    assert finished.summary["out"] == out
    assert out in repr(finished)
    same(server, out, local / "run")
    finished.report()
    dk.Run(local / "run").report()
    same(server, out, local / "run", ("report.html", "report.json", "DATASET_CARD.md"))
    dk.Run(out).apply(clean, workers=2)
    same(server, clean, local / "clean", cleaned(local))
    there = server.objects(out)
    assert {"report.html", "report.json", "DATASET_CARD.md", "run.json", "decision.json"} <= there.keys()
    assert not [name for name in there if ".tmp" in name or name.startswith(".next")]
    left = list((tmp_path / "scratch").rglob("*.tar"))
    assert not left, "cleaned shards leave this machine once they are put"
    assert dk.keep_filter(out)({"__key__": "00", "__url__": str(shards / "00000.tar")}) in (True, False)


def test_faults_of_the_server_change_nothing_but_a_number(
    server: S3, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources, run folder and cleaned shards in a bucket whose server fails, cuts, lists what was, and answers when the
    client has given up."""
    import fsspec

    source = "s3://bucket/faults/data"
    for path in shards.iterdir():
        boto().upload_file(str(path), "bucket", f"faults/data/{path.name}")
    run(source, tmp_path / "run")
    apply(tmp_path / "run", tmp_path / "clean", workers=1)
    impatient = {"config_kwargs": {"read_timeout": 2, "connect_timeout": 2}}
    monkeypatch.setenv("FSSPEC_S3", json.dumps(impatient))  # for the workers
    monkeypatch.setitem(fsspec.config.conf, "s3", impatient)
    server.busy, server.cut, server.stale, server.silent = 0.05, 0.2, 0.3, 0.01
    before = remote.retried()
    out, clean = "s3://bucket/faults/run", "s3://bucket/faults/clean"
    run(source, out, workers=2)
    apply(out, clean, workers=1)
    faults = dict(server.faults)
    server.calm()
    assert faults.keys() == {"503", "503 after", "cut", "stale", "silent"}
    same(server, out, tmp_path / "run")
    same(server, clean, tmp_path / "clean", cleaned(tmp_path))
    scanned = json.loads(server.objects(out)["progress.json"])["stages"]["scan"]
    again = remote.retried() - before + scanned["requests_retried"]
    assert again >= faults["503"] + faults["503 after"] + faults["silent"]


def test_another_machine_goes_on_and_reads_nothing_again(
    server: S3, shards: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = "s3://bucket/machines/run"
    run(shards, out)
    monkeypatch.setenv("DEDUPKIT_SCRATCH", str(tmp_path / "other"))
    dates = server.dates(out)
    run(shards, out)
    again = server.dates(out)
    assert {name for name in again if again[name] != dates.get(name) and ".done/scan" in name} == set()
    dk.Run(out).rethreshold("exact")
    monkeypatch.setenv("DEDUPKIT_SCRATCH", str(tmp_path / "scratch"))
    assert dk.Run(out).summary["rule"] == "exact"
    dk.Run(out).rethreshold("copies")
    same(server, out, local / "run")


def test_vectors_stay_in_the_store_until_they_are_read(
    server: S3, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, other = "s3://bucket/vectors/run", tmp_path / "other"
    run(shards, out, embed="lite", rule="exact or lite>=0.98")
    run(shards, tmp_path / "one", embed="lite", rule="exact or lite>=0.95")
    before = {name: date for name, date in server.dates(out).items() if name.startswith("embeddings/")}
    monkeypatch.setenv("DEDUPKIT_SCRATCH", str(other))
    run(shards, out, embed="lite", rule="exact or lite>=0.98")
    dk.Run(out).rethreshold("exact")
    assert not list(other.rglob("embeddings/*/*.npy"))
    run(shards, out, embed="lite", rule="exact or lite>=0.95")
    assert len(list(other.rglob("embeddings/*/*.npy"))) == len(before) == 6
    same(server, out, tmp_path / "one", ("manifest.parquet", "groups.parquet"))
    assert {name: date for name, date in server.dates(out).items() if name.startswith("embeddings/")} == before


def test_markers_of_folders_are_no_objects(
    server: S3, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consoles and other clients put empty objects whose names end in a slash."""
    for folder in ("", "samples/"):
        boto().put_object(Bucket="bucket", Key=f"marked/run/{folder}", Body=b"")
    for path in (local / "run").rglob("*"):
        if path.is_file():
            boto().upload_file(str(path), "bucket", f"marked/run/{path.relative_to(local / 'run')}")
    assert dk.Run("s3://bucket/marked/run").manifest.equals(dk.Run(local / "run").manifest)


def test_markers_of_folders_are_no_samples_and_no_files(server: S3, shards: Path, tmp_path: Path) -> None:
    for folder in ("photos/", "photos/00000/", "tars/"):
        boto().put_object(Bucket="bucket", Key=f"consoles/{folder}", Body=b"")
    pq.write_table(pa.table({"key": ["0"], "status": ["success"]}), tmp_path / "00000.parquet")
    boto().upload_file(str(tmp_path / "00000.parquet"), "bucket", "consoles/photos/00000.parquet")
    boto().put_object(Bucket="bucket", Key="consoles/photos/00000/0.jpg", Body=b"an image")
    boto().upload_file(str(shards / "00000.tar"), "bucket", "consoles/tars/0.tar")
    for folder, keys in (("photos", ["0"]), ("tars", ["00", "01", "02", "03"])):
        found, passed_over = find_shards(f"s3://bucket/consoles/{folder}"), PassedOver()
        assert [sample.key for shard in found for sample in shard.read(passed_over=passed_over)] == keys
        assert passed_over.count == 0


def test_shards_that_came_or_changed_since_are_seen_by_the_same_process(
    server: S3, shards: Path, tmp_path: Path
) -> None:
    def keys(*tars: int) -> list[str]:
        for place, tar in enumerate(tars):
            boto().upload_file(str(shards / f"{tar:05d}.tar"), "bucket", f"growing/{place}.tar")
        found: list[str] = run("s3://bucket/growing", tmp_path / "run").manifest["key"].to_pylist()
        return found

    assert keys(0) == ["00", "01", "02", "03"]
    assert keys(0, 1) == ["00", "01", "02", "03", "10", "11", "12", "13"]
    assert keys(2, 1) == ["20", "21", "22", "23", "10", "11", "12", "13"]
    Originals(RunFolder(tmp_path / "run"))
    boto().delete_object(Bucket="bucket", Key="growing/1.tar")
    with pytest.raises(DedupkitError, match="not where it was"):
        Originals(RunFolder(tmp_path / "run")).shard(1)


def test_a_server_that_never_answers_is_an_error_when_the_client_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec
    import s3fs

    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = {"AWS_ENDPOINT_URL": host, "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in (settings | {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 1, "connect_timeout": 1}})
        monkeypatch.setattr(remote, "PAUSES", ())
        s3fs.S3FileSystem.clear_instance_cache()
        bucket = Bucket("s3://bucket/silent")
        with pytest.raises(OSError, match="(?i)time"):
            bucket.read("object")
        with pytest.raises(OSError, match="(?i)time"):
            bucket.put("object", b"data")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_command_that_is_killed_at_any_object_is_made_up_for_by_the_same_one(
    server: S3, shards: Path, local: Path
) -> None:
    """Killed at the 4th object that it puts, then at the 10th that the next one puts, and so on until one ends."""
    out, kills, at = "s3://bucket/killed/run", 0, 4
    while True:
        arguments = [sys.executable, "-m", "dedupkit.cli", "run", shards, "--out", out, "--workers", "2"]
        process = subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True)
        count = itertools.count(1)

        def kill(_: str, process: subprocess.Popen[str] = process, count: Iterator[int] = count, at: int = at) -> None:
            if next(count) == at:
                process.kill()

        server.on_put = kill
        _, said = process.communicate(timeout=100)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said
        kills, at = kills + 1, at + 6
    server.on_put = None
    assert kills >= 2
    same(server, out, local / "run")


def test_damage_and_loss_in_the_store_are_mended(server: S3, shards: Path, local: Path) -> None:
    out = "s3://bucket/damage/run"
    run(shards, out)
    boto().put_object(Bucket="bucket", Key="damage/run/samples/00003.parquet", Body=b"no Parquet")
    boto().delete_object(Bucket="bucket", Key="damage/run/edges/pdq/00000.parquet")
    with pytest.raises(DedupkitError, match="damaged|missing"):
        dk.Run(out).rethreshold("exact")
    run(shards, out)
    same(server, out, local / "run")
    clean = "s3://bucket/damage/clean"
    apply(out, clean, workers=1)
    boto().put_object(Bucket="bucket", Key="damage/clean/00000.tar", Body=b"no tar")
    apply(out, clean, workers=1)
    same(server, clean, local / "clean", cleaned(local))
    boto().put_object(Bucket="bucket", Key="damage/clean/mine.tar", Body=b"of another")
    apply(out, clean, workers=1)
    assert server.objects(clean)["mine.tar"] == b"of another"
    with pytest.raises(DedupkitError, match="choose another --to for keys"):
        apply(out, clean, format="keys")


def test_an_update_and_a_reference_set_in_a_bucket(server: S3, shards: Path, tmp_path: Path) -> None:
    old, new = shards / "{00000..00003}.tar", shards / "{00004..00005}.tar"
    run(str(old), "s3://bucket/update/old")
    remote_one = dk.update("s3://bucket/update/old", str(new), "s3://bucket/update/new", workers=0)
    run(str(old), tmp_path / "old")
    local_one = dk.update(tmp_path / "old", str(new), tmp_path / "new", workers=0)
    ours = ["sample", "verdict", "kept_sample", "kept_key"]
    assert remote_one.manifest.select(ours).equals(local_one.manifest.select(ours))
    assert "s3://bucket/update/old" in set(remote_one.manifest["kept_source"].to_pylist())
    against = run(str(new), "s3://bucket/update/against", against="s3://bucket/update/old")
    assert against.summary["references"][0]["name"] == "s3://bucket/update/old"


def test_a_second_look_at_an_image_reads_that_image_alone(server: S3, photos: dict[str, Image.Image]) -> None:
    images = jpegs(photos, 6, 96)
    filling = [(f"{number:02d}.bin", bytes([number]) * 1_500_000) for number in range(6)]
    data = tar_bytes(sorted([*filling, *((f"{number:02d}.jpg", image) for number, image in enumerate(images))]))
    boto().put_object(Bucket="bucket", Key="look/0.tar", Body=data)
    finished = run("s3://bucket/look/0.tar", "s3://bucket/look/run")
    before = server.sent
    found = {place.sample: data for place, data in Originals(RunFolder(finished.path)).read([4, 1])}
    assert found == {4: images[4], 1: images[1]}
    assert server.sent - before < len(data) / 10
    with_end = list(read_ranges("s3://bucket/look/0.tar", [(len(data) - 5, 100), (len(data) + 5, 10), (3, 0), (0, 4)]))
    assert with_end == [data[-5:], b"", b"", data[:4]]


def test_cleaned_lists_and_an_audit_in_a_bucket_are_those_of_a_local_disk(
    server: S3, shards: Path, local: Path, tmp_path: Path
) -> None:
    lists = tmp_path / "urls.tsv"
    lists.write_text("url\ncaption\nhttp://a.example/1\nhttp://a.example/1\nhttp://a.example/2\n")
    there = "s3://bucket/lists/clean"
    for rule in ("url_family", "url"):  # the second call replaces what the first wrote
        clean_lists(lists, there, rule=rule)
    clean_lists(lists, tmp_path / "clean", rule="url")
    assert server.objects(there).keys() >= {"urls.tsv", "dedupkit/summary.json"}
    same(server, there, tmp_path / "clean", ("urls.tsv", "dedupkit/manifest.parquet", "dedupkit/summary.json"))
    boto().put_object(Bucket="bucket", Key="foreign/notes.txt", Body=b"mine")
    with pytest.raises(DedupkitError, match="s3://bucket/foreign is not empty"):
        clean_lists(lists, "s3://bucket/foreign", rule="url")

    out = "s3://bucket/audits/first"
    boto().put_object(Bucket="bucket", Key="audits/first/prompts.parquet", Body=b"an earlier audit's")
    audit(shards, local / "run", out)
    audit(shards, local / "run", tmp_path / "audit")
    same(server, out, tmp_path / "audit", ("audit.parquet", "audit.csv", "audit.json", "takedown.txt"))
    assert "prompts.parquet" not in server.objects(out)
    with pytest.raises(
        DedupkitError, match="real images are in the training set.*s3://bucket/audits/first/overlap.txt"
    ):
        audit(shards, local / "run", out, real=shards)
    assert server.objects(out)["overlap.txt"]


class TestBadInput:
    def test_no_such_bucket(self, server: S3, shards: Path) -> None:
        said = command("run", shards, "--out", "s3://nowhere/run", "--workers", "1")
        assert said.returncode == 1
        assert "s3://nowhere/run: The specified bucket does not exist; make the bucket first" in one_line(said.stderr)

    def test_no_credentials(self, server: S3, shards: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        said = command("run", shards, "--out", "s3://bucket/run", "--workers", "1")
        assert said.returncode == 1
        assert "credentials" in one_line(said.stderr)

    def test_credentials_that_expire_in_the_middle_lose_nothing(
        self, server: S3, shards: Path, local: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = "s3://bucket/expired/run"
        put, count = Bucket.put, [0]

        def putting(self: Bucket, name: str, content: bytes | Path) -> State:
            count[0] += 1
            if count[0] == 8:
                server.refused = ("400 Bad Request", "ExpiredToken", "The provided token has expired.")
            return put(self, name, content)

        monkeypatch.setattr(Bucket, "put", putting)
        with pytest.raises(OSError, match="expired"):
            run(shards, out)
        server.calm()
        assert any(name.startswith(".done/scan") for name in server.objects(out))
        assert "manifest.parquet" not in server.objects(out)
        run(shards, out)
        same(server, out, local / "run")

    def test_two_commands_on_one_run_folder(
        self, server: S3, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = "s3://bucket/two/run"
        run(shards, out)
        with RunFolder(out).locked():
            monkeypatch.setenv("DEDUPKIT_SCRATCH", str(tmp_path / "elsewhere"))
            before = server.objects(out)
            for act in (lambda: run(shards, out), lambda: dk.Run(out).rethreshold("exact")):
                with pytest.raises(DedupkitError, match="another run is writing into s3://bucket/two/run"):
                    act()
            after = server.objects(out)
            assert {name for name in after if after[name] != before.get(name)} <= {
                name for name in after if ".held" in name
            }
        run(shards, out)

    def test_a_holder_that_died_is_taken_over_and_a_lost_folder_is_not_written(self, server: S3) -> None:
        bucket = Bucket("s3://bucket/lease/run")
        bucket.create(".held/00000001", b'{"token": "dead", "host": "another", "process": 1}')
        with Lease(bucket) as held:
            held.check()
            bucket.create(".held/00000003", b'{"token": "late", "host": "another", "process": 1}')
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    held.check()
                except DedupkitError:
                    break
                time.sleep(0.05)
            with pytest.raises(DedupkitError, match="another process has taken s3://bucket/lease/run"):
                held.check()

    def test_apply_stops_where_another_command_has_taken_its_folder(
        self, server: S3, local: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As after a suspension of more than half a minute."""
        real, begun = export.write_parts, []

        def suspended(*arguments: Any) -> dict[str, Any]:
            begun.append(arguments)
            result = real(*arguments)
            Bucket("s3://bucket/lost/clean").create(".dedupkit/.held/00000009", b'{"token": "late"}')
            for thread in threading.enumerate():
                if thread.name == "lease":  # it ends when it sees that
                    thread.join(10)
            return result

        monkeypatch.setattr(export, "write_parts", suspended)
        with pytest.raises(DedupkitError, match="another process has taken s3://bucket/lost/clean"):
            apply(local / "run", "s3://bucket/lost/clean", workers=1, shard_size=1)
        assert "sizes.json" not in server.objects("s3://bucket/lost/clean")
        assert len(begun) == 1, "it ends with the task that it was at"

    def test_of_many_that_take_a_folder_at_once_one_gets_it(self, server: S3) -> None:
        bucket = Bucket("s3://bucket/many/run")
        taken, refused = [], []

        def take() -> None:
            try:
                with Lease(bucket):
                    taken.append(1)
                    ready.wait(10)
            except DedupkitError:
                refused.append(1)
                ready.set() if len(refused) == 5 else None

        ready = threading.Event()
        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(taken), len(refused)) == (1, 5)

    def test_a_later_layout_something_else_and_a_source_around_it(self, server: S3, shards: Path) -> None:
        boto().put_object(Bucket="bucket", Key="later/run.json", Body=b'{"layout": 99}')
        boto().put_object(Bucket="bucket", Key="else/notes.txt", Body=b"mine")
        for folder, said in (("later", "in layout 99 by a later version"), ("else", "is not empty and holds no run")):
            before = server.objects(f"s3://bucket/{folder}")
            with pytest.raises(DedupkitError, match=said):
                run(shards, f"s3://bucket/{folder}")
            assert server.objects(f"s3://bucket/{folder}") == before
        with pytest.raises(DedupkitError, match="lies inside the source"):
            boto().upload_file(str(shards / "00000.tar"), "bucket", "inside/0.tar")
            run("s3://bucket/inside", "s3://bucket/inside/run")

    def test_a_shard_that_changes_between_scan_and_apply(self, server: S3, shards: Path) -> None:
        boto().upload_file(str(shards / "00000.tar"), "bucket", "changes/data/0.tar")
        run("s3://bucket/changes/data", "s3://bucket/changes/run")
        boto().upload_file(str(shards / "00001.tar"), "bucket", "changes/data/0.tar")
        with pytest.raises(DedupkitError, match="s3://bucket/changes/data/0.tar"):
            apply("s3://bucket/changes/run", "s3://bucket/changes/clean", workers=1)
        assert "00000.tar" not in server.objects("s3://bucket/changes/clean")
        again = run("s3://bucket/changes/data", "s3://bucket/changes/run")
        written = apply("s3://bucket/changes/run", "s3://bucket/changes/clean", workers=1)
        assert written["samples"] == again.summary["keep"]
