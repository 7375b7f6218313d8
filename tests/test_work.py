"""The folder for what can be lost."""

import os
from pathlib import Path

from basekamp.work import work_directory


def test_work_directory_is_the_chosen_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for chosen, expected in (("relative", tmp_path / "relative"), ("~/x", tmp_path / "x"), ("/abs", Path("/abs"))):
        monkeypatch.setenv("BASEKAMP_HOME", chosen)
        assert work_directory() == expected


def test_work_directory_is_in_the_current_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("BASEKAMP_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert work_directory() == tmp_path / ".basekamp"
    assert work_directory().is_dir()


def test_work_directory_is_a_temporary_one_where_nothing_can_be_written(monkeypatch, tmp_path):
    monkeypatch.delenv("BASEKAMP_HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir("/proc")
    assert work_directory() == tmp_path / f"basekamp-{os.getuid()}"
