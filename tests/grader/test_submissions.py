"""Taking submissions in: what is accepted in every form, and what is refused in one clear line."""

import io
import os
import zipfile
from pathlib import Path

import pytest

from grader.assignment import Assignment, UnusableInput, load_assignment
from grader.submissions import Submission, collect

FILES = {"hw1/scoring.py": b"x = 1\n", "hw1/sampling.py": b"y = 2\n"}


@pytest.fixture(scope="module")
def assignment() -> Assignment:
    return load_assignment("hw1")


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in files.items():
            archive.writestr(zipfile.ZipInfo(name), contents)
    return buffer.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, contents in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    return folder


def the_one(path: Path, assignment: Assignment) -> Submission:
    (submission,) = collect([path], assignment)
    return submission


class TestForms:
    def test_folder(self, tmp_path: Path, assignment: Assignment) -> None:
        """A folder named as the student, with the package in it, is one submission."""
        submission = the_one(write(tmp_path / "ada", FILES), assignment)
        assert (submission.name, submission.files, submission.refusal) == ("ada", FILES, "")

    @pytest.mark.parametrize("prefix", ["hw1/", "", "my homework/hw1/", "Übung/eins/"])
    def test_zip(self, tmp_path: Path, assignment: Assignment, prefix: str) -> None:
        """A zip holds the modules in the package's folder, in another one, or at its top."""
        path = tmp_path / "ada.zip"
        path.write_bytes(zipped({prefix + name.removeprefix("hw1/"): text for name, text in FILES.items()}))
        assert the_one(path, assignment).files == FILES

    def test_bulk_download(self, tmp_path: Path, assignment: Assignment) -> None:
        """A zip of zips holds a submission each, with or without a folder for each student, also inside a folder."""
        bulk = zipped({"ada.zip": zipped(FILES), "Grace Hopper_12345/homework.zip": zipped(FILES)})
        write(tmp_path / "cohort", {"bulk.zip": bulk, "alan/hw1/scoring.py": b"", "notes.txt": b"not a submission"})
        for path in (tmp_path / "cohort" / "bulk.zip", tmp_path / "cohort"):
            found = {s.name: s.files for s in collect([path], assignment)}
            found.pop("alan", None)
            assert found == {"ada": FILES, "Grace Hopper_12345": FILES}

    def test_only_the_package_is_taken(self, tmp_path: Path, assignment: Assignment) -> None:
        """Tests, conftest, setup.py and what lies beside the package have no effect; own helper modules have."""
        more = {
            "conftest.py": b"", "setup.py": b"", "torch.py": b"", "hw1/conftest.py": b"", "hw1/tests/test_x.py": b"",
            "hw1/notes.pdf": b"", "hw1/__pycache__/scoring.pyc": b"", "pytest.ini": b"",
        }  # fmt: skip
        helper = {"hw1/numerics.py": b"z = 3\n", "hw1/parts/__init__.py": b""}
        submission = the_one(write(tmp_path / "ada", FILES | helper | more), assignment)
        assert submission.files == FILES | helper
        assert "conftest.py" in submission.ignored

    def test_same_name_twice(self, tmp_path: Path, assignment: Assignment) -> None:
        """Of two submissions under one name the second is refused; both have reports of their own."""
        write(tmp_path, {"ada/hw1/scoring.py": b"", "ada.zip": zipped(FILES)})
        first, second = collect([tmp_path], assignment)
        assert not first.refusal
        assert second.refusal.startswith("a second submission")
        assert first.slug != second.slug

    def test_names_become_plain_file_names(self, tmp_path: Path, assignment: Assignment) -> None:
        """Slugs are plain, and differ also where file systems ignore case."""
        for name in ("Zoë / O'Neil", "Zo-O-Neil", "zo-o-neil"):
            write(tmp_path / name.replace("/", "∕"), FILES)
        slugs = [submission.slug for submission in collect([tmp_path], assignment)]
        assert len({slug.lower() for slug in slugs}) == 3
        assert all(slug.isascii() and "/" not in slug and " " not in slug for slug in slugs)


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("../../etc/passwd", "leads out of"),
            ("hw1/../../x.py", "leads out of"),
            ("/etc/passwd", "leads out of"),
            ("C:/x.py", "leads out of"),
            ("hw1/a:b.py", "is not a name for a file"),
            ("hw1/" + "a" * 300 + ".py", "is not a name for a file"),
            ("hw1//x.py", "is not a name for a file"),
            ("hw1/new\nline.py", "is not a name for a file"),
        ],
    )
    def test_names(self, tmp_path: Path, assignment: Assignment, name: str, words: str) -> None:
        """A name that leads out of the folder, or is none, refuses the zip with one line that shows it."""
        path = tmp_path / "eve.zip"
        path.write_bytes(zipped(FILES | {name: b""}))
        refusal = the_one(path, assignment).refusal
        assert words in refusal
        assert "\n" not in refusal

    def test_link_in_a_zip(self, tmp_path: Path, assignment: Assignment) -> None:
        """A symbolic link in a zip is refused."""
        link = zipfile.ZipInfo("hw1/numbers.py")
        link.external_attr = 0o120777 << 16
        path = tmp_path / "oscar.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hw1/scoring.py", b"")
            archive.writestr(link, b"/etc/passwd")
        assert "link or a device" in the_one(path, assignment).refusal

    @pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo])
    def test_link_or_pipe_in_a_folder(self, tmp_path: Path, assignment: Assignment, make: object) -> None:
        """A link or a named pipe in a folder is refused, and never read."""
        folder = write(tmp_path / "oscar", FILES)
        make(folder / "hw1" / "numbers.py")  # type: ignore[operator]
        assert "link or a device" in the_one(folder, assignment).refusal

    def test_link_in_place_of_a_submission(self, tmp_path: Path, assignment: Assignment) -> None:
        """A link to another student's folder is no submission."""
        write(tmp_path / "ada", FILES)
        (tmp_path / "eve").symlink_to(tmp_path / "ada")
        assert {s.name: s.refusal for s in collect([tmp_path], assignment)} == {
            "ada": "",
            "eve": "a link instead of a folder or zip",
        }

    def test_zip_bomb(self, tmp_path: Path, assignment: Assignment) -> None:
        """A zip that unpacks to more than the limit is refused, whatever its headers say."""
        bomb = bytearray(zipped({"hw1/scoring.py": bytes(30 << 20)}))
        path = tmp_path / "trudy.zip"
        path.write_bytes(bomb)
        assert "more than 20 MiB" in the_one(path, assignment).refusal
        size = (30 << 20).to_bytes(4, "little")
        path.write_bytes(bomb.replace(size, (9).to_bytes(4, "little")))  # a header that lies
        submission = the_one(path, assignment)
        assert submission.refusal
        assert not submission.files

    def test_too_many_files(self, tmp_path: Path, assignment: Assignment) -> None:
        """A zip of thousands of files is refused."""
        path = tmp_path / "trudy.zip"
        path.write_bytes(zipped({f"hw1/m{i}.py": b"" for i in range(2001)}))
        assert the_one(path, assignment).refusal == "more than 2000 files"

    def test_file_twice(self, tmp_path: Path, assignment: Assignment) -> None:
        """A zip with one name twice is refused: which of the two would count?"""
        path = tmp_path / "eve.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hw1/scoring.py", b"a")
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("hw1/scoring.py", b"b")
        assert the_one(path, assignment).refusal == "'hw1/scoring.py' is in the zip twice"

    @pytest.mark.parametrize("contents", [b"", b"not a zip", zipped(FILES)[:40], zipped(FILES)[:-30]])
    def test_broken_zip(self, tmp_path: Path, assignment: Assignment, contents: bytes) -> None:
        """What is no zip is refused as such."""
        path = tmp_path / "ken.zip"
        path.write_bytes(contents)
        assert the_one(path, assignment).refusal.startswith("the zip cannot be read")

    def test_other_files(self, tmp_path: Path, assignment: Assignment) -> None:
        """Where none of the assignment's modules is there, the line names them."""
        path = tmp_path / "ken.zip"
        path.write_bytes(zipped({"essay.txt": b"", "main.py": b""}))
        assert "expected hw1/scoring.py, hw1/sampling.py" in the_one(path, assignment).refusal

    def test_nothing_there(self, tmp_path: Path, assignment: Assignment) -> None:
        """A path that does not exist, or holds no submission, is the caller's mistake."""
        for path in (tmp_path / "missing", tmp_path):
            with pytest.raises(UnusableInput):
                collect([path], assignment)
