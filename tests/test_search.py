"""A search names the samples of a run that are nearest to a file, an address, a key or an image."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers import command, encode, one_line, run, write_tar

import dedupkit as dk
from dedupkit.workflows.search import Search, SearchResult


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
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert search.find(f"{address}/query.png").found == found.found
        with pytest.raises(dk.DedupkitError, match="cannot be fetched"):
            search.find(f"{address}/missing.png")
        server.shutdown()
    assert search.find("small").found[0].signal == "key"


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


def test_words_are_searched_with_the_text_side_of_the_embedder(photos, tmp_path):
    import numpy as np

    class Words:
        name, dim, key, min_side, precision, device = "words", 3, "words-1", 8, "float32", "cpu"

        def preprocess(self, image):
            return np.asarray(image.convert("RGB").resize((1, 1)))

        def encode(self, batch):
            rows = batch.reshape(len(batch), 3).astype(np.float32) + 1
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

        def encode_text(self, texts):
            return np.array([[1, 0, 0]], np.float32)

    members = [(f"{name}.png", encode(photos[name].convert("RGB"), "PNG")) for name in ("retina", "rocket")]
    done = run(write_tar(tmp_path / "in.tar", members), tmp_path / "run", embed=Words())
    found = Search(done.path, embedder=Words()).find("red")
    assert [each.key for each in found.found] == ["retina", "rocket"]
    assert found.found[0].signal == "words"
