"""A file behind a URL reads like a local one, is fetched once, and is complete or absent."""

import json
import tarfile
import threading
import time
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from kinema.errors import UnreadableVideo
from kinema.video import remote_cache as cache
from kinema.video.read_options import Limits, ReadOptions
from kinema.video.remote_cache import default_cache, local_path
from kinema.video.source import count_frames, frame_range, read_gray, read_rgb


@pytest.fixture
def read_options(tmp_path):
    return ReadOptions(cache=tmp_path / "cache")


@pytest.fixture
def impatient(monkeypatch):
    """Make every use ask the server whether the file has changed."""
    monkeypatch.setattr(cache, "FRESH_S", 0.0)


class Handler(SimpleHTTPRequestHandler):
    """Server of a folder that records requests and can truncate answers."""

    requests: list[tuple[str, str]] = []  # noqa: RUF012  # one list for one server
    cut: list[str] = []  # noqa: RUF012  # as above

    def do_GET(self) -> None:
        self.requests.append(("GET", self.path))
        if self.path in self.cut:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        super().do_GET()

    def do_HEAD(self) -> None:
        self.requests.append(("HEAD", self.path))
        super().do_HEAD()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    Handler.requests, Handler.cut = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def got():
    return [path for method, path in Handler.requests if method == "GET"]


def test_a_file_on_a_web_server_reads_as_the_file_does_and_is_fetched_once(server, read_options, numbered, read_stamps):
    folder, address = server
    (folder / "one video.mp4").write_bytes(Path(numbered).read_bytes())
    url = f"{address}/one%20video.mp4"
    assert count_frames(url, read_options) == 200
    assert frame_range(url, 1.0, 2.0, read_options) == (25, 50)
    assert read_stamps(read_rgb(url, [3, 150], read_options)) == [3, 150]
    np.testing.assert_array_equal(read_rgb(url, [7, 8], read_options), read_rgb(numbered, [7, 8]))
    assert len(got()) == 1


def test_a_file_in_memory_reads_as_the_file_does(read_options, numbered, read_stamps, raises):
    with fsspec.open("memory://videos/one.mp4", "wb") as file:
        file.write(Path(numbered).read_bytes())
    assert count_frames("memory://videos/one.mp4", read_options) == 200
    assert read_stamps(read_rgb("memory://videos/one.mp4", [3, 150], read_options)) == [3, 150]
    with raises(UnreadableVideo, "fetched", path="memory://videos/two.mp4"):
        read_rgb("memory://videos/two.mp4", [0], read_options)


def test_a_file_inside_an_archive_is_one_more_url(tmp_path, read_options, numbered, read_stamps):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(numbered, "videos/one.mp4")
    assert read_stamps(read_rgb(f"zip://videos/one.mp4::{tmp_path}/all.zip", [5], read_options)) == [5]
    with fsspec.open("memory://all.zip", "wb") as file:
        file.write((tmp_path / "all.zip").read_bytes())
    assert read_stamps(read_rgb("zip://videos/one.mp4::memory://all.zip", [5], read_options)) == [5]


def test_an_array_at_the_top_of_an_archive_is_an_array(tmp_path, read_options):
    np.savez(tmp_path / "a.npz", rgb=np.full((3, 4, 5, 3), 7, np.uint8))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive, tarfile.open(tmp_path / "all.tar", "w") as tar:
        archive.write(tmp_path / "a.npz", "a.npz")
        tar.add(tmp_path / "a.npz", "a.npz")
    for protocol in ("zip", "tar"):
        assert count_frames(f"{protocol}://a.npz::{tmp_path}/all.{protocol}", read_options) == 3


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"x" * 2000, b"x" * 200])
@pytest.mark.parametrize("protocol", ["zip", "tar"])
def test_a_broken_archive_is_unreadable(tmp_path, read_options, content, protocol, raises):
    (tmp_path / "all").write_bytes(content)
    url = f"{protocol}://a.mp4::{tmp_path}/all"
    with raises(UnreadableVideo, path=url):
        count_frames(url, read_options)


def test_arrays_and_folders_of_pictures_are_fetched_too(read_options):
    depth = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)
    with fsspec.open("memory://depth/a.npz", "wb") as file:
        np.savez(file, depth=depth)
    np.testing.assert_array_equal(read_gray("memory://depth/a.npz", [1, 4], read_options), depth[[1, 4]])
    for number in range(12):
        with fsspec.open(f"memory://pictures/clip/{number}.png", "wb") as file:
            Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(file, "png")
    assert count_frames("memory://pictures/clip", read_options) == 12
    assert read_rgb("memory://pictures/clip", [2, 10], read_options)[:, 0, 0, 0].tolist() == [2, 10]


def test_a_missing_file_is_named_by_its_url(server, read_options, raises):
    _, address = server
    with raises(UnreadableVideo, "fetched", path=f"{address}/gone.mp4"):
        count_frames(f"{address}/gone.mp4", read_options)


def test_a_missing_server_is_named_by_its_url(read_options, raises):
    with raises(UnreadableVideo, "fetched", path="http://127.0.0.1:9/one.mp4"):
        count_frames("http://127.0.0.1:9/one.mp4", read_options)


def test_an_unknown_protocol_is_refused(read_options, raises):
    with raises(UnreadableVideo, "carrier", path="carrier://pigeon/one.mp4"):
        count_frames("carrier://pigeon/one.mp4", read_options)


def test_errors_of_the_copy_name_the_url(server, read_options, raises):
    folder, address = server
    (folder / "text.mp4").write_text("no video")
    with raises(UnreadableVideo, f"{address}/text.mp4: not a readable video", path=f"{address}/text.mp4"):
        count_frames(f"{address}/text.mp4", read_options)


def test_a_transfer_that_breaks_off_leaves_nothing(server, read_options, numbered, read_stamps, raises):
    folder, address = server
    (folder / "one.mp4").write_bytes(Path(numbered).read_bytes())
    Handler.cut.append("/one.mp4")
    with raises(UnreadableVideo, path=f"{address}/one.mp4"):
        count_frames(f"{address}/one.mp4", read_options)
    assert list((read_options.cache / "files").iterdir()) == []
    Handler.cut.clear()
    assert read_stamps(read_rgb(f"{address}/one.mp4", [199], read_options)) == [199]


def test_a_file_larger_than_the_limit_is_not_fetched(server, tmp_path, numbered, raises):
    folder, address = server
    (folder / "one.mp4").write_bytes(Path(numbered).read_bytes())
    small = ReadOptions(cache=tmp_path / "cache", limits=Limits(file_bytes=1000))
    with raises(UnreadableVideo, "1,000", path=f"{address}/one.mp4", field="file_bytes"):
        count_frames(f"{address}/one.mp4", small)
    assert got() == []


@pytest.mark.usefixtures("impatient")
def test_a_file_that_has_changed_is_fetched_anew(server, read_options, write_video, stamp, read_stamps):
    folder, address = server
    write_video(folder / "one.mp4", [stamp(n) for n in range(10)])
    assert count_frames(f"{address}/one.mp4", read_options) == 10
    assert count_frames(f"{address}/one.mp4", read_options) == 10
    assert len(got()) == 1
    time.sleep(1.1)  # the server tells times in seconds
    write_video(folder / "one.mp4", [stamp(n + 50) for n in range(12)])
    assert count_frames(f"{address}/one.mp4", read_options) == 12
    assert read_stamps(read_rgb(f"{address}/one.mp4", [11], read_options)) == [61]
    assert len(got()) == 2
    assert len([p for p in (read_options.cache / "files").iterdir() if p.suffix == ".mp4"]) == 1


def test_a_copy_that_was_deleted_by_hand_is_fetched_anew(server, read_options, numbered):
    folder, address = server
    (folder / "one.mp4").write_bytes(Path(numbered).read_bytes())
    Path(local_path(f"{address}/one.mp4", read_options)).unlink()
    assert count_frames(f"{address}/one.mp4", read_options) == 200


def test_a_note_that_points_elsewhere_is_not_followed(server, read_options, numbered):
    """A manipulated note in the cache cannot make kinema read a file elsewhere."""
    folder, address = server
    (folder / "one.mp4").write_bytes(Path(numbered).read_bytes())
    local_path(f"{address}/one.mp4", read_options)
    (note,) = (read_options.cache / "files").glob("*.json")
    note.write_text('{"version": "x", "copy": "../../../etc/passwd"}')
    assert Path(local_path(f"{address}/one.mp4", read_options)).parent == read_options.cache / "files"


def test_many_readers_at_once_get_whole_files(server, read_options, numbered, read_stamps):
    folder, address = server
    (folder / "one.mp4").write_bytes(Path(numbered).read_bytes())
    found: list[object] = []

    def read():
        try:
            found.append(read_stamps(read_rgb(f"{address}/one.mp4", [199], read_options)))
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[199]] * 8


def test_a_file_url_is_the_file_itself(numbered, read_options):
    assert local_path(f"file://{numbered}", read_options) == numbered
    assert not (read_options.cache / "files").exists()


def test_the_cache_lies_where_the_desktop_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "kinema"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "kinema"


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("reference://a.mp4::file://{refs}", "reference"),
        ("reference://a.mp4::{refs}", "reference"),
        ("zip://a.mp4::reference://all.zip::file://{refs}", "reference"),
        ("zip://a.mp4::reference", "reference"),
        ("simplecache::reference://a.mp4::file://{refs}", "simplecache"),
        ("async_wrapper::file://{refs}", "async_wrapper"),
        ("REFERENCE://a.mp4::file://{refs}", "REFERENCE"),
        ("ssh://host/a.mp4", "ssh"),
        ("libarchive://a.mp4::file://{refs}", "libarchive"),
        ("zip://a.mp4::data:text/plain,x", "data:text/plain,x"),
        ("data://text/plain,x", "data"),
        ("https+reference://a.mp4", "https+reference"),
    ],
)
def test_a_protocol_that_may_run_code_is_refused_wherever_it_is_in_a_chain(
    url, protocol, tmp_path, read_options, raises
):
    ran = tmp_path / "ran"
    command = "{{ cycler.__init__.__globals__.os.popen('touch " + str(ran) + "').read() }}"
    refs = tmp_path / "refs.json"
    refs.write_text(json.dumps({"version": 1, "templates": {"u": command}, "refs": {"a.mp4": ["{{u}}", 0, 10]}}))
    address = url.format(refs=refs)
    with raises(UnreadableVideo, repr(protocol), path=address):
        count_frames(address, read_options)
    assert not ran.exists()


def test_chains_of_allowed_protocols_work_in_every_spelling(tmp_path, read_options, numbered):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(numbered, "one.mp4")
    for inner in (f"file://{tmp_path}/all.zip", f"{tmp_path}/all.zip", f"local://{tmp_path}/all.zip"):
        assert count_frames(f"zip://one.mp4::{inner}", read_options) == 200
