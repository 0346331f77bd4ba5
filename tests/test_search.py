"""A search names the samples of a run that are nearest to a file, an address, a key or an image."""

from __future__ import annotations

import base64
import io
import json
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from browsing import evaluate, opened
from helpers import command, encode, one_line, run, write_tar
from PIL import Image
from test_calibrate import ask
from test_guard import Colours

import dedupkit as dk
from dedupkit.memorization.queries import first_model
from dedupkit.runfolder import RunConfig
from dedupkit.serving import Body
from dedupkit.workflows.search import Search, SearchResult
from dedupkit.workflows.search_page import search_page, serve_search


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    members = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        members += [(f"{name}.jpg", encode(photos[name].convert("RGB"))), (f"{name}.txt", f"a {name}".encode())]
    members.append(("small.jpg", encode(photos["coffee"].resize((240, 160)))))
    return run(write_tar(folder / "in.tar", members), folder / "run")


def test_a_file_a_key_and_an_address_find_the_same_group_once(finished, photos, tmp_path):
    file = tmp_path / "query.png"
    photos["coffee"].rotate(180).save(file)
    search = Search(finished.path)
    found = search.find(str(file))
    assert [each.group_size for each in found.found] == [2]
    assert found.found[0].kept_key == "coffee"
    assert "no vectors" in found.notes[0]
    assert SearchResult.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert "<img" in found._repr_html_()
    for image in (file, Image.open(file), np.asarray(Image.open(file)), file.read_bytes()):
        assert search.find(image).found == search.image(image).found == found.found
    with pytest.raises(TypeError, match="an image is a path, .* not NoneType"):
        search.find(None)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert search.find(f"{address}/query.png").found == found.found
        with pytest.raises(dk.DedupkitError, match="cannot be fetched"):
            search.find(f"{address}/missing.png")
        with pytest.raises(dk.DedupkitError, match="cannot be fetched"):
            search.find(f"{address}/my image.png")
        server.shutdown()
    assert search.find("small").found[0].signal == "key"


def test_a_notebook_shows_results_of_runs_in_a_store_and_of_data_that_moved(photos, tmp_path):
    members = [(f"{name}.jpg", encode(photos[name].convert("RGB"))) for name in ("coffee", "rocket")]
    done = run(write_tar(tmp_path / "old" / "in.tar", members), tmp_path / "run")
    (tmp_path / "old").rename(tmp_path / "new")
    found = Search(done.path, source=tmp_path / "new").find("rocket")
    assert "<img" in found._repr_html_()
    assert "<img" in replace(found, run="s3://bucket/run")._repr_html_()  # what is named is not where it lies here
    assert "no image" in SearchResult.from_json(found.to_json())._repr_html_()
    assert found == Search(done.path, source={str(tmp_path / "old"): str(tmp_path / "new")}).find("rocket")


def test_the_command_prints_rows_and_one_line_for_what_it_cannot_find(finished, photos, tmp_path):
    file = tmp_path / "query.jpg"
    photos["rocket"].save(file)
    done = command("search", finished.path, file, "--json")
    assert json.loads(done.stdout)["found"][0]["key"] == "rocket", done.stderr
    failed = command("search", finished.path, "a red bicycle")
    assert failed.returncode == 1
    assert "openclip" in one_line(failed.stderr)
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(dk.DedupkitError, match=r"text\.jpg cannot be searched for"):
        Search(finished.path).find(str(tmp_path / "text.jpg"))


def test_a_key_is_searched_for_by_the_first_of_its_samples_that_can_be_read(photos, tmp_path):
    first = write_tar(tmp_path / "a.tar", [("0.jpg", b"broken"), ("1.jpg", encode(photos["rocket"]))])
    second = write_tar(tmp_path / "b.tar", [("0.jpg", encode(photos["coffee"])), ("2.jpg", encode(photos["coffee"]))])
    search = Search(run([first, second], tmp_path / "run").path)
    found = search.named("0")
    assert [(each.sample, each.signal) for each in found.found[:2]] == [(0, "key"), (2, "key")]
    assert found.notes[-1].startswith("1 of the 2 samples of this key cannot be read: 0 cannot be searched for: not an")
    second.unlink()
    with pytest.raises(dk.DedupkitError, match="0 cannot be searched for: not an image"):
        search.named("0")


class Words:
    """An embedder for tests: the mean colour, with words for red alone."""

    name, dim, key, min_side, precision, device = "words", 3, "words-1", 8, "float32", "cpu"

    def preprocess(self, image):
        return np.asarray(image.convert("RGB").resize((1, 1)))

    def encode(self, batch):
        rows = batch.reshape(len(batch), 3).astype(np.float32) + 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_text(self, texts):
        return np.array([[1, 0, 0]], np.float32)


def test_words_are_searched_with_the_text_side_of_the_embedder(photos, tmp_path, monkeypatch):
    small = {name: photos[name].convert("RGB").resize((200, 150)) for name in ("retina", "rocket")}
    members = [(f"{name}.png", encode(image, "PNG")) for name, image in small.items()]
    members += [(f"retina{number:02d}.png", members[0][1]) for number in range(20)]  # nearer than any other image
    members.append(("caf\udce9.png", members[0][1]))
    done = run(write_tar(tmp_path / "in.tar", members), tmp_path / "run", embed=Words())
    search = Search(done.path, embedder=Words())
    for key in ("caf\udce9", r"caf\xe9"):  # as a shell gives what is no Unicode, and as the manifest writes it
        assert [search.find(key).found[0].key, search.find(key).found[0].signal] == [r"caf\xe9", "key"]
    assert search.find("red \ud800", top=2).found == search.find("red", top=2).found
    found = search.find("red", top=2)
    assert [each.kept_key for each in found.found] == ["retina", "rocket"]
    assert found.found[0].signal == "words"
    assert search.find("red and so on " * 400).found == found.found  # longer than a path may be
    page = search_page(search)
    assert b"A key of the run, or words" in page.get("").body
    answer = json.loads(page.post("search", Body("application/json", b'{"text": "red"}')).body)
    assert [each["kept_key"] for each in answer["found"]] == ["retina", "rocket"]
    monkeypatch.setattr(Words, "encode_text", lambda self, texts: 1 / 0)
    failed = json.loads(page.post("search", Body("application/json", b'{"text": "blue"}')).body)
    assert failed == {"error": "division by zero"}


def test_a_run_whose_vectors_were_given_is_searched_by_hash(finished, photos, tmp_path):
    keys = [row["key"] for row in finished.manifest.to_pylist()]
    vectors = np.eye(len(keys), 8, dtype=np.float32)
    given = run(finished.config["sources"], tmp_path / "run", embed=(vectors, keys))
    search = Search(given.path)
    search.load()  # as the page does
    found = search.image(photos["coffee"])
    assert found.found[0].kept_key == "coffee"
    assert "the vectors of vectors were given to the run" in found.notes[0]
    assert search.find("rocket").found[0].signal == "key"
    config = RunConfig((), (), "exact", "exact", "sample", embedders={"given": "precomputed:a.npz", "copy": "copy"})
    assert first_model(config) == "copy"


def test_each_model_is_loaded_once(photos, tmp_path, monkeypatch):
    members = [(f"{name}.jpg", encode(photos[name].convert("RGB"))) for name in ("retina", "rocket")]
    done = run(write_tar(tmp_path / "in.tar", members), tmp_path / "run", embed=[Colours(), Words()])
    search = Search(done.path, embedder=Colours())
    search._near.config = replace(search._near.config, embedders={"colours": "python:colours", "words": "openclip:x"})
    loaded = []
    monkeypatch.setattr("dedupkit.workflows.search.model_of", lambda _, name, __: loaded.append(name) or Words())
    for _ in range(2):
        assert search.find("red").found[0].signal == "words"
        assert search.image(photos["moon"]).found[0].signal == "colours"
    assert loaded == ["words"]


@pytest.fixture
def page(finished):
    """The page of the search, served in a thread."""
    served = search_page(Search(finished.path))
    thread = threading.Thread(target=served.serve, daemon=True)
    thread.start()
    yield served
    served.finished.set()
    thread.join(5)


def sent(url, body, kind="application/octet-stream"):
    status, reply, _ = ask(url, "search", body, Content_Type=kind)
    return status, json.loads(reply) if reply.startswith(b"{") else reply.decode()


class TestPage:
    def test_an_image_and_a_key_are_answered_with_thumbnails(self, page, photos):
        status, html, headers = ask(page.url)
        assert status == 200
        assert b"5 samples of" in html
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert ask(page.url, "images/0")[0] == 404  # nothing was found yet
        status, found = sent(page.url, encode(photos["coffee"].rotate(180)))
        assert status == 200
        assert [each["group_size"] for each in found["found"]] == [2]
        status, data, headers = ask(page.url, f"images/{found['found'][0]['image']}")
        assert (status, headers["Content-Type"]) == (200, "image/jpeg")
        assert max(Image.open(io.BytesIO(data)).size) == 240
        keyed = sent(page.url, b'{"text": "rocket"}', "application/json")[1]
        assert keyed["found"][0]["in_words"] == "named by its key"

    def test_text_opens_no_file_and_fetches_no_address(self, page, photos, tmp_path):
        photos["rocket"].save(tmp_path / "rocket.jpg")
        for text in (str(tmp_path / "rocket.jpg"), "http://127.0.0.1:1/a.jpg", "a red bicycle"):
            status, found = sent(page.url, json.dumps({"text": text}).encode(), "application/json")
            assert status == 200
            assert "no file, address or key" in found["error"]

    @pytest.mark.parametrize(
        ("body", "kind", "status"),
        [
            (b"no image", "application/octet-stream", 200),
            (b"{}", "application/json", 400),
            (b'{"text": " "}', "application/json", 400),
            (b'{"text": "\\ud800"}', "application/json", 200),
            (b"[1]", "application/json", 400),
            (b"x", "text/plain", 415),
            (b'{"text": "' + b"x" * 5000 + b'"}', "application/json", 413),
        ],
    )
    def test_nonsense_is_refused_or_said(self, page, body, kind, status):
        assert ask(page.url, "search", body, Content_Type=kind)[0] == status

    def test_a_foreign_page_or_host_is_refused(self, page):
        assert ask(page.url, Host="evil.example")[0] == 403
        assert ask(page.url, Origin="http://evil.example")[0] == 403
        assert ask(page.url.replace(page.token, "guess"))[0] == 404
        for path in ("images/../run.json", "run.json", "images/-1", "images/" + "9" * 5000):
            assert ask(page.url, path)[0] == 404
        assert ask(page.url, "other", b"x", Content_Type="application/octet-stream")[0] == 404
        long = {"Content_Type": "application/octet-stream", "Content_Length": "9" * 5000}
        assert ask(page.url, "search", b"x", **long)[0] == 413

    def test_in_a_browser_an_image_is_dropped_and_a_key_typed(self, page, photos, tmp_path):
        data = base64.b64encode(encode(photos["chelsea"].convert("RGB").resize((300, 200)))).decode()
        drop = (
            f"(() => {{ const bytes = Uint8Array.from(atob('{data}'), (one) => one.charCodeAt(0));"
            "const given = new DataTransfer(); given.items.add(new File([bytes], 'a.jpg', {type: 'image/jpeg'}));"
            "document.dispatchEvent(new DragEvent('drop', {dataTransfer: given, bubbles: true})); })()"
        )
        type_key = "get('text').value = 'rocket'; get('ask').requestSubmit(); 0"
        keys = "[...document.querySelectorAll('#found .key')].map((each) => each.textContent).join()"
        loaded = "[...document.querySelectorAll('#found img')].every((each) => each.naturalWidth)"
        shown = "!get('query').hidden && get('query').naturalWidth"
        words = "get('text').value = 'no such key'; get('ask').requestSubmit(); 0"
        with opened(page.url, tmp_path / "profile") as profile:
            said = evaluate(
                profile,
                (drop, keys),
                ("0", f"{loaded} && {shown}"),
                ("0", "get('said').textContent"),
                (type_key, f"{keys} === 'rocket'"),
                (words, "get('notes').textContent"),
            )
        assert said[0] == "chelsea"
        assert said[1] == 300
        assert said[2].startswith("1 sample, in ")
        assert said[3] is True
        assert "words need vectors of a CLIP" in said[4]


def test_the_page_is_served_until_it_is_stopped(finished):
    told = []

    def tell(url):
        told.append(url)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve_search(Search(finished.path), tell=tell)
    assert told[0].startswith("http://127.0.0.1:")
    both = command("search", finished.path, "rocket", "--serve")
    assert both.returncode == 2
