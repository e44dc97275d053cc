"""Disks that are full, folders that take no files, and whose files they are."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from datadose import files
from datadose.errors import InputError, RunError
from datadose.files import prepare_folder, write_atomic
from datadose.reading import read_json
from helpers.command import PATIENCE, PREDICT, argv, environment, run_datadose, run_main
from helpers.processes import SMALL, TRAIN, leftovers

full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@full
@pytest.mark.parametrize("json_", [[], ["--json"]], ids=["table", "json"])
def test_a_full_output_is_one_line(json_: list[str]) -> None:
    with Path("/dev/full").open("wb") as sink:
        done = subprocess.run(
            argv(*PREDICT, *json_),
            stdout=sink,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
            env=environment(),
        )
    assert done.returncode == 1
    assert done.stderr == (
        "datadose predict: error: standard output: No space left on device; run the same command again\n"
    )


def test_a_closed_output_is_no_error() -> None:
    done = run_datadose(*PREDICT, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="needs a folder that takes no files from root either"
)
@pytest.mark.parametrize("command", ["reproduce", "train"])
def test_a_folder_that_takes_no_files_is_bad_input(command: str, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(TRAIN % 10)
    arguments = SMALL if command == "reproduce" else ["train", tmp_path / "train.yaml"]
    done = run_datadose(*arguments, "--out", "/proc/self")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "out: got /proc/self; allowed: a folder that can be written" in done.stderr


def test_train_on_a_full_disk_says_how_to_continue(tmp_path: Path) -> None:
    """A disk that takes no file above 3,000 bytes: the configuration fits, the first checkpoint does not."""
    (tmp_path / "train.yaml").write_text(TRAIN % 60)
    command = ["train", tmp_path / "train.yaml", "--out"]
    done = run_datadose(
        *command,
        tmp_path / "cut",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)),
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "could not be written" in last
    assert last.endswith("run the same command again with --resume to continue")
    assert not leftovers(tmp_path)
    assert run_main([*map(str, command), str(tmp_path / "cut"), "--resume"]) == 0
    assert run_main([*map(str, command), str(tmp_path / "whole")]) == 0
    for name in ("metrics.csv", "model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_refused_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunError, match=r"file: could not be written \(No space left on device\)$"):
        write_atomic(path, "new")
    monkeypatch.setattr(os, "fsync", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    """The next process that writes there removes it; files of living processes and of other machines stay."""
    code = (
        "import os, sys; from pathlib import Path; from datadose.files import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as file: file.write(b'half'); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    subprocess.run(command, timeout=PATIENCE, check=False, env=environment())
    assert len(leftovers(tmp_path)) == 1
    dead = leftovers(tmp_path)[0]
    alive = dead.with_name(dead.name.replace(dead.name.split("-")[2], str(os.getppid())))
    elsewhere = dead.with_name(dead.name.replace(dead.name.split("-")[1], "0" * 8))
    alive.touch()
    elsewhere.touch()
    files._remove_abandoned.cache_clear()
    write_atomic(tmp_path / "other", "whole")
    assert {p.name for p in tmp_path.iterdir()} == {"other", alive.name, elsewhere.name}


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o027])
def test_files_respect_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


def test_files_that_cannot_be_read_are_bad_input(tmp_path: Path) -> None:
    """A folder where a file should be, a file where a folder should be, too deep, too long."""
    with pytest.raises(InputError, match="is a folder"):
        read_json(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a folder"):
        prepare_folder("out", tmp_path / "file")
    for content in ("[" * 100_000, "1" * 5_000, "\ud800".encode("utf-8", "surrogatepass"), b"\xff"):
        (tmp_path / "file").write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError, match="file: got"):
            read_json(tmp_path / "file")


def test_a_matplotlibrc_changes_no_figure(results: Path, tmp_path: Path) -> None:
    """Drawn in a folder with one, a figure has the bytes that it has without."""
    (tmp_path / "matplotlibrc").write_text(
        "lines.linewidth: 9\nfont.size: 30\naxes.facecolor: red\nsavefig.bbox: tight\n"
    )
    drawn = {name: (results / name).read_bytes() for name in ("fig5.png", "fig5.svg", "fig5.hover.json")}
    code = "import sys; from pathlib import Path; from datadose.studies.reproduce import draw_saved; "
    command = [sys.executable, "-c", code + "draw_saved('fig5', Path(sys.argv[1]))", str(results)]
    subprocess.run(command, cwd=tmp_path, timeout=PATIENCE, check=True, env=environment())
    assert drawn == {name: (results / name).read_bytes() for name in drawn}
