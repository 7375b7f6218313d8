"""Which commit a result comes from, in real checkouts."""

import subprocess
from pathlib import Path

import pytest

from basekamp.models import source
from basekamp.models.source import REVISION, code_commit


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(REVISION, raising=False)
    (tmp_path / "model.py").write_text("depth = 1\n")
    for command in (["init", "--quiet"], ["add", "model.py"], ["commit", "--quiet", "-m", "first"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *command], check=True)
    return tmp_path


def test_commit_of_a_clean_checkout_is_its_hash_wherever_in_it(checkout, monkeypatch):
    (checkout / "results.csv").touch()  # git does not track it
    (checkout / "below").mkdir()
    monkeypatch.chdir(checkout / "below")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert code_commit() == head and len(head) == 40


def test_changes_since_the_commit_are_told_apart(checkout):
    told = set()
    for depth in (1, 2, 3):
        (checkout / "model.py").write_text(f"depth = {depth}\n")
        told.add(code_commit())
        assert ("+" in code_commit()) == (depth > 1)
    assert len(told) == 3 and len({one.partition("+")[0] for one in told}) == 1


def test_new_python_file_is_a_change_and_what_git_cannot_tell_is_unknown(checkout, monkeypatch):
    (checkout / "below").mkdir()
    monkeypatch.chdir(checkout / "below")
    clean = code_commit()
    (checkout / "new.py").write_text("depth = 2\n")
    first = code_commit()
    (checkout / "new.py").write_text("depth = 3\n")
    assert clean != first != code_commit() and first.startswith(f"{clean}+")
    whole = source._git
    monkeypatch.setattr(source, "_git", lambda *command: None if "diff" in command else whole(*command))
    assert code_commit() == f"{clean}+unknown"


def test_image_tells_its_own_commit(checkout, monkeypatch):
    monkeypatch.setenv(REVISION, "0123abc")
    assert code_commit() == "0123abc"
    monkeypatch.setenv(REVISION, "unknown")
    assert code_commit() == ""


def test_outside_of_a_checkout_or_without_git_nothing_is_told(tmp_path, monkeypatch, checkout):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path.parent / f"{tmp_path.name}-bare").mkdir()
    monkeypatch.chdir(tmp_path.parent / f"{tmp_path.name}-bare")
    assert code_commit() == ""
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("PATH", "")
    assert code_commit() == ""
